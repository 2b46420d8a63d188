"""The workers of the configuration reach every job that can use them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from wsss.cli.app import app
from wsss.compute.workers import auto_workers
from wsss.config.base import overlay

from .conftest import CONFIG, Project, copy_project

ROOT = Path(__file__).parents[2]
_WITHOUT = {
    "tag-noise": "asks CLIP about one image after the other",
    "refine-import": "reads one checkpoint",
    "contact-sheet": "one process draws",
}
"""Commands of stages that have no use for workers."""


def _commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The package's commands by their names, those of groups too."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _takes_workers() -> dict[str, bool]:
    """Commands of the package, and whether they have the option."""
    return {
        name: any("--workers" in parameter.opts for parameter in command.params)
        for name, command in _commands()
    }


def _command_of(shell: str) -> str:
    """Of a rule's command or its text: ``refine-train``, ``truth masks``."""
    words = shell.partition("python -m wsss ")[2]
    words = re.sub(r"^launch --processes \S+ ", "", words)
    first, second = words.split()[:2]
    return f"{first} {second}" if first in ("truth", "data", "demo") else first


def test_every_stage_takes_workers_or_has_no_use_for_them() -> None:
    stages = {
        name
        for name, command in _commands()
        if "stage_values"
        in getattr(command.callback, "__wrapped__", command.callback).__code__.co_names
    }
    assert {"cams", "retrain", "score", "truth tags"} <= stages
    takes = _takes_workers()
    assert {name for name in stages if not takes[name]} == set(_WITHOUT)


def test_every_rule_hands_workers_on() -> None:
    takes, without = _takes_workers(), []
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule in re.split(r"\n(?= *rule ?\w*:)", path.read_text())[1:]:
            shell = "".join(re.findall(r'"([^"]*)"', rule.partition("shell:")[2]))
            if "python -m wsss" not in shell or not takes.get(_command_of(shell)):
                continue
            if not re.search(r"--workers \{(threads|resources\.workers)\}", shell):
                without.append(_command_of(shell))
    assert without == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return copy_project(tmp_path_factory.mktemp("project"))


def _workers(project: Project, *options: str, **compute: int | str) -> dict[str, set[str]]:
    """What each command of a dry run is given, by its name."""
    seeds = overlay(CONFIG["refine"], {"method": "weakclip", "weclip": {}})
    project.configure(compute=compute, refine=seeds | {"weclip": {}})
    arguments = ("--dry-run", "--printshellcmds", "--cores", "16", "--forceall", *options)
    takes, given = _takes_workers(), dict[str, set[str]]()
    for line in project.snakemake(*arguments).stdout.splitlines():
        if "test no = no || " in line:  # a job that does nothing without GPUs
            continue
        if "python -m wsss" in line and takes.get(_command_of(line)):
            option = re.search(r"--workers (\d+)", line)
            given.setdefault(_command_of(line), set()).add(option[1] if option else "none")
    return given


@pytest.mark.workflow
def test_jobs_are_given_the_number(project: Project) -> None:
    given = _workers(project, workers=3)
    names = {"ingest", "cams", "seeds", "refine-train", "refine-apply", "refine-predict", "masks"}
    assert names | {"retrain", "retrain-predict", "score", "page"} <= set(given)
    assert given.pop("score") == {"1"}  # the demo's
    assert set().union(*given.values()) == {"3"}


@pytest.mark.workflow
@pytest.mark.parametrize(("kind", "command"), [("demo", "page"), ("folder", "gallery")])
def test_pages_get_their_shards_in_the_file_of_the_job(
    project: Project, kind: str, command: str
) -> None:
    """With many parts they are longer than Linux takes as one argument."""
    data = {"kind": kind, "root": "photos"} if kind == "folder" else {"kind": "demo"}
    project.configure(name="many", shards=3, data=data)
    target = f"results/many/{'gallery.json' if kind == 'folder' else 'index.html'}"
    arguments = ("--dry-run", "--printshellcmds", "--cores", "2", target)
    lines = project.snakemake(*arguments).stdout.splitlines()
    (line,) = [line for line in lines if f"python -m wsss {command} " in line]
    assert ".h5" not in line
    assert "WSSS_JOB=" in line


@pytest.mark.workflow
def test_without_a_number_the_machine_says_it(project: Project) -> None:
    given = _workers(project, workers="auto")
    del given["score"]
    assert set().union(*given.values()) == {str(auto_workers("auto"))}


@pytest.mark.workflow
def test_on_a_cluster_a_training_counts_its_own_cpus(project: Project) -> None:
    submit = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "true")
    options = (*submit, "--jobs", "4", "--local-cores", "1", "--set-threads", "cams=5")
    given = _workers(project, *options)
    assert (given["refine-train"], given["retrain"], given["cams"]) == ({"0"}, {"0"}, {"5"})
    assert given["page"] == {"1"}  # next to the engine
