"""What `wsss photos` and the commands next to it refuse before anything starts, and how."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.hostile.harness import wsss
from tests.photos.test_photo_run import CLIP, draw_photos, write_tags
from wsss.artifacts.exclusive_lock import exclusive_lock
from wsss.cli.app import app
from wsss.config.paths import expand_path
from wsss.photos.settings import HEADER, photo_settings, settings_yaml
from wsss.pipeline.engine import workflow_folder
from wsss.pipeline.photo_run import refuse_other_photos

Refusal = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refusal:
    """Runs a command next to a folder ``p`` of two photos with tags; what its one message says."""
    write_tags(tmp_path / "p", draw_photos(tmp_path / "p", {"a": 0, "b": 1}))
    monkeypatch.chdir(tmp_path)

    def run_refused(*command: str) -> str:
        before = set(tmp_path.rglob("*"))
        done = wsss(*command)
        done.refused()
        assert set(tmp_path.rglob("*")) == before
        said, _, message = f"\n{done.text}".partition("\nerror: ")
        assert "error" not in said
        return message.strip()

    return run_refused


def test_the_advice_runs_as_it_stands(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    message = refusal("photos", "my photos")
    command = shlex.split(message.partition("let CLIP propose tags: ")[2])
    assert command[:4] == ["wsss", "tags", "suggest", str(tmp_path / "my photos")]


def test_a_photo_in_place_of_its_folder(refusal: Refusal) -> None:
    assert refusal("photos", "p/a.jpg").endswith(
        "p/a.jpg: is a file; name the folder with the photos and their tags"
    )


def test_a_table_with_another_spelling_is_named(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "p/tags.csv").rename(tmp_path / "p/Tags.CSV")
    assert f"name another by --tags, such as {tmp_path / 'p/Tags.CSV'}, or" in refusal(
        "photos", "p"
    )


@pytest.mark.parametrize("scales", ["0", "1,-2", "nan", "17", "a"])
def test_scales_are_checked_before_anything_is_read(scales: str) -> None:
    done = CliRunner().invoke(app, ["predict", "p", "--weights", "w", "--scales", scales])
    assert done.exit_code == 2
    assert "--scales" in done.output
    assert "expected numbers" in done.output


@pytest.mark.parametrize("cores", ["0", "-1", "abc", "1.5", ""])
@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_numbers_of_cores(refusal: Refusal, cores: str, dry: tuple[str, ...]) -> None:
    message = refusal("photos", "p", *CLIP, f"--cores={cores}", *dry)
    assert message == f"--cores: found {cores or 'nothing'}, expected a positive number or all"


@pytest.mark.workflow
@pytest.mark.slow
def test_the_engine_refuses_no_core(tmp_path: Path) -> None:
    """It would wait for ever, with no word on the screen."""
    snakefile = str(workflow_folder() / "Snakefile")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores=0", "--snakefile", snakefile],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "error: --cores: found 0, expected a positive number or all" in done.stderr


def begun(out: Path, photos: Path) -> None:
    """A folder of results whose run was begun."""
    out.mkdir(parents=True)
    settings = photo_settings(photos, "fast")
    (out / "config.yaml").write_text(settings_yaml(settings, "snakemake"), "utf-8")


def test_results_to_which_another_process_writes(refusal: Refusal, tmp_path: Path) -> None:
    begun(tmp_path / "p-masks", tmp_path / "p")
    before = (tmp_path / "p-masks/config.yaml").read_bytes()
    with exclusive_lock(tmp_path / "p-masks/.snakemake"):
        message = refusal("photos", "p", *CLIP, "--recipe", "best")
    assert message.startswith(f"--out p-masks: another process works there (process {os.getpid()} ")
    assert message.endswith("; wait for it, stop it, or choose another folder")
    assert (tmp_path / "p-masks/config.yaml").read_bytes() == before


def test_the_command_that_makes_results_again_runs_in_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the run is named; there is no Snakefile in that folder."""
    draw_photos(tmp_path / "p", {"a": 0})
    out = tmp_path / "p-masks"
    begun(out, tmp_path / "p")
    (out / "results/photos/logs").mkdir(parents=True)
    for folder, name in ((tmp_path, "p-masks"), (out, "photos"), (out, "results/photos")):
        monkeypatch.chdir(folder)
        done = CliRunner().invoke(app, ["verify", name, "--quick"])
        assert done.exit_code == 2
        assert f" --snakefile {workflow_folder()}/Snakefile --directory {out} " in done.output


def test_results_of_another_folder_of_photos(refusal: Refusal, tmp_path: Path) -> None:
    write_tags(tmp_path / "q", draw_photos(tmp_path / "q", {"a": 2}))
    begun(tmp_path / "q-masks", tmp_path / "q")
    expected = (
        f"--out q-masks: holds the results of other photos, those in {tmp_path}/q; choose another "
        "folder"
    )
    command = ("photos", "p", "--out", "q-masks", *CLIP)
    assert refusal(*command) == refusal(*command, "--dry-run") == expected
    # Two folders of one name have results of one name, too.
    write_tags(tmp_path / "other/q", draw_photos(tmp_path / "other/q", {"a": 3}))
    assert refusal("photos", "other/q", *CLIP) == expected


def test_results_of_photos_that_were_moved_or_are_spelt_another_way(tmp_path: Path) -> None:
    photos, out = tmp_path / "p", tmp_path / "out"
    photos.mkdir()
    begun(out, photos)
    (tmp_path / "link").symlink_to(photos)
    for same in (photos, out / "../p", tmp_path / "link", Path(os.path.relpath(photos))):
        refuse_other_photos(out, same)
    photos.rename(tmp_path / "renamed")
    refuse_other_photos(out, tmp_path / "renamed")
    (out / "config.yaml").write_text(f"{HEADER}\ndata: edited by hand\n")
    refuse_other_photos(out, tmp_path / "renamed")


def test_a_model_config_without_its_weights(refusal: Refusal) -> None:
    expected = "is a model config, so --weights must name a weight file (found 'openai')"
    for command in (("photos", "p"), ("photos", "p", "--dry-run", "--weights", "openai"),
                    ("tags", "suggest", "p", "--words", "a,b", "--out", "new.csv")):  # fmt: skip
        message = refusal(*command, *CLIP[:2])
        assert message == f"--clip {expand_path(CLIP[1])} {expected}"


def test_weights_without_their_model(refusal: Refusal) -> None:
    message = refusal("photos", "p", *CLIP[2:], "--dry-run")
    assert ".safetensors into ViT-B-16-quickgelu: the weights do not fit: lacks " in message
    assert message.endswith("; clip.model (--clip) must name the model of these weights")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {root: q}", "leave out data.root; `wsss photos` is given the folder of the photos"),
        ("data: {kind: voc}", "leave out data.kind; `wsss photos` reads a folder of photos"),
        ("data: {kind: demo}", "leave out data.kind; `wsss photos` reads a folder of photos"),
        (
            "retrain: {enabled: true, model: clip-vit, corrected: gone}",
            "retrain.corrected: {folder}/gone: no such folder; `wsss import-masks` writes one",
        ),
    ],
)
def test_values_of_a_configuration_file(
    refusal: Refusal, tmp_path: Path, text: str, message: str
) -> None:
    write_tags(tmp_path / "q", draw_photos(tmp_path / "q", {"a": 0}))
    (tmp_path / "more.yaml").write_text(text)
    expected = f"--config: {message}".format(folder=tmp_path)
    for dry in ((), ("--dry-run",)):
        assert refusal("photos", "p", "-c", "more.yaml", *CLIP, *dry) == expected


def test_values_that_the_command_has_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "p"
    photos.mkdir()
    (tmp_path / "link").symlink_to(photos)
    for root in ("p", "./p", "link", str(photos)):
        changes = {"name": "photos", "data": {"kind": "folder", "root": root}}
        assert Path(photo_settings(photos, "fast", changes=changes).data.root).samefile(photos)
        assert photo_settings(Path("p"), "fast", changes=changes)


def test_faults_of_configuration_files_name_them(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text("clip: {long_side: null}")
    (tmp_path / "key.yaml").write_text("mask: {}")
    command = ("photos", "p", *CLIP, "--config", "fine.yaml", "--config")
    message = refusal(*command, "key.yaml")
    assert message.startswith("fine.yaml, key.yaml: not a valid configuration\n")
    assert "mask: unknown key; did you mean masks?" in message
    (tmp_path / "syntax.yaml").write_text("name: a\ndata: {\n")
    message = refusal(*command, "syntax.yaml")
    assert message.startswith("syntax.yaml: is not valid YAML: ")
    assert "unicode string" not in message
    assert "in line 3, column 1" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--words is empty; write words with commas between, e.g. cat,dog"),
        (" , ", "--words is empty; write words with commas between, e.g. cat,dog"),
        ("cat;dog", "--words: class name 'cat;dog': holds ';', which separates names; list each"),
        ("cat,Cat", "--words: class name 'Cat' is the same as 'cat' (case, width, underscores"),
    ],
)
def test_words_of_tags(refusal: Refusal, words: str, message: str) -> None:
    command = ("tags", "suggest", "p", "--out", "new.csv", "--words", words, *CLIP)
    assert refusal(*command).startswith(message)
