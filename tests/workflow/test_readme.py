"""README is short, and every command in it works in a fresh clone."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from tests.workflow.conftest import ROOT, RUN, Project, tables_of_papers
from tests.workflow.jobs import run_snakemake

README = (ROOT / "README.md").read_text("utf-8")
_FENCE = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = [
    words
    for block in _FENCE.findall(README)
    for line in block.splitlines()
    if (words := shlex.split(line, comments=True))
]


def of(program: str) -> list[list[str]]:
    return [words for words in COMMANDS if words[0] == program]


def test_every_command_is_of_a_kind_that_is_tested_here() -> None:
    assert {words[0] for words in COMMANDS} <= {"make", "snakemake", "wsss", "."}
    assert of(".") == [[".", ".venv/bin/activate"]]


def test_the_page_is_short_and_begins_with_a_picture() -> None:
    prose = re.sub(r"\]\([^)]*\)", "]", _FENCE.sub("", README))
    assert len(re.findall(r"\w[\w'’.-]*", prose)) <= 400
    picture = re.search(r"!\[.+\]\((.+)\)", README.split("\n**")[0])
    assert picture is not None
    assert (ROOT / picture[1]).is_file()


def test_make_has_the_targets() -> None:
    for words in of("make"):
        done = subprocess.run(
            [*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.workflow
@pytest.mark.parametrize("words", of("snakemake"), ids=" ".join)
def test_snakemake_finds_what_to_run(finished: Project, words: list[str]) -> None:
    with tables_of_papers(finished):
        done = run_snakemake([*words[1:], "--dry-run"], cwd=finished.root, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "Job stats:" in done.stdout + done.stderr


@pytest.mark.workflow
@pytest.mark.parametrize("words", of("wsss"), ids=" ".join)
def test_the_command_runs(finished: Project, words: list[str]) -> None:
    arguments = [re.sub(r"results/demo[\w-]*", f"results/{RUN}", word) for word in words[1:]]
    photos = finished.root / "photos"
    if words[1] == "photos":  # its stages run in tests/photos
        images = sorted((finished.root / f"results/{RUN}-data/JPEGImages").glob("train_*.jpg"))[:2]
        photos.mkdir()
        for image in images:
            shutil.copy(image, photos)
        shutil.copy(finished.root / f"results/{RUN}-data/tags.csv", photos)
        arguments.append("--dry-run")
    process = finished.wsss(*arguments)
    output, _ = process.communicate()
    shutil.rmtree(photos, ignore_errors=True)
    assert process.returncode == 0, output
    assert output
