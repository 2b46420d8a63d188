"""The command line: help for every command, one message for expected errors."""

import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tests.builders import provenance, write_shard
from wsss.__main__ import app
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.cli.app import run
from wsss.cli.options import parse_shard
from wsss.config.load import from_mapping
from wsss.data.datasets.classes import class_list
from wsss.data.manifest import Sample, write_manifest
from wsss.data.manifest_folder import CLASSES, MANIFEST, write_classes
from wsss.pipeline.stages import entry_modules, stage_code

ROOT = Path(__file__).parents[2]
GROUP: Any = typer.main.get_command(app)


def _commands(group: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    commands = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            commands += _commands(command, (*prefix, name))
        else:
            commands.append((*prefix, name))
    return commands


@pytest.mark.parametrize("command", _commands(GROUP), ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], terminal_width=100)
    assert result.exit_code == 0
    node = GROUP
    for part in command:
        node = node.commands[part]
    assert node.help
    for parameter in node.params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            assert parameter.help, f"{command}: {parameter.name} has no help"


def test_expected_error_is_one_message_without_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("clipp: {}\n")
    done = subprocess.run(
        [sys.executable, "-m", "wsss", "config", "check", "-c", "bad.yaml"],
        cwd=tmp_path, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "did you mean clip?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_shipped_configuration_passes_the_check() -> None:
    result = CliRunner().invoke(app, ["config", "check", "-c", str(ROOT / "config.yaml")])
    assert result.exit_code == 0, result.output


def test_check_prints_the_resolved_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("variant: published\n")
    result = CliRunner().invoke(app, ["config", "check", "-c", str(tmp_path / "c.yaml")])
    assert result.exit_code == 0
    assert "gradient: softmax" in result.stdout


VOC = "{retrain: {init: random}, data: {kind: voc"
PHOTOS = "{retrain: {enabled: false}, cams: {splits: [train]}, data: {kind: folder, val_list: ''"


def test_a_class_that_no_photo_has_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,dog sailing boat\nb.jpg,cat\n")
    classes = "[cat, dgo, Sailing_Boat, dog]"
    (tmp_path / "c.yaml").write_text(f"{PHOTOS}, root: {tmp_path}, classes: {classes}}}}}")
    assert _run(["config", "check", "-c", str(tmp_path / "c.yaml")]) == 0
    message = f"data.classes: 'dgo' is in no tag of {tmp_path}/tags.csv"
    assert message in caplog.text
    assert caplog.text.count("is in no tag of") == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("sweep: {refine.weakclip.prompt: [2]}", "run prompt-2: .*did you mean .*prompts"),
        ("runs: {a: {refine: {method: weklip}}}", "run a: .*refine.method"),
        ("matrix: {cams: {a: {cams: {sorce: grad_cam}}}}", "did you mean cams.source"),
        ("clip: {model: ViT-B-61, pretrained: openai}", "no model 'ViT-B-61'; did you mean"),
        ("clip: {model: ViT-B-16, pretrained: opennai}", "did you mean openai"),
        (
            "clip: {model: ViT-L-14-quickgelu, pretrained: openai}",
            "crop is 64; expected .*14 x 14.*56 or 70",
        ),
        ("clip: {model: ViT-B-16, pretrained: openai}", "use the model 'ViT-B-16-quickgelu'"),
        ("clip: {model: RN50, pretrained: openai}", "the image tower is ModifiedResNet"),
        ("clip: {model: EVA02-L-14, pretrained: merged2b_s4b_b131k}", "crop is 64; .*56 or 70"),
        ("runs: {a: {refine: {weclip: {rfm_blocks: 50}}}}", "rfm_blocks is 50, but .* 12 blocks"),
        ("cams: {affinity: {enabled: true, last_blocks: 13}}", "last_blocks is 13, but .* 12 b"),
        ("retrain: {model: segformer-b0, init: mit-b9}", "expected random, mit-b0 or the path"),
        ("runs: {a: {retrain: {init: mit-b2}}}", "mit-b2 fits segformer-b2"),
        ("retrain: {init: no/such.pth}", "jobs that run here: retrain.init: no/such"),
        (f"{VOC}, root: no/voc}}}}", "jobs that run here: data.root: no/voc: no such folder"),
        (f"{VOC}, root: ., tags: no.csv}}}}", "jobs that run here: data.tags: no.csv: no such t"),
        (f"{PHOTOS}, root: no/photos}}}}", "jobs that run here: data.root: no/photos: no such f"),
        (f"{PHOTOS}, root: .}}}}", r"jobs that run here: data.tags: tags\.csv: no such table"),
        ("retrain: {corrected: no/hand}", "jobs that run here: retrain.corrected: no/hand: no s"),
        (
            "cams: {patch_text: {tse: {knowledge: no.json}}}",
            r"jobs that run here: cams\.patch_text\.tse\.knowledge: no\.json: no such file",
        ),
        ("{data: {val_list: ''}, cams: {splits: [val]}}", r"set cams.splits to \[train\]"),
        (
            f"{PHOTOS}, root: ., classes: [cat, Cat]}}}}",
            r"c\.yaml: not a valid .*data\.classes: class name 'Cat' is the same as 'cat'",
        ),
        ("data: {classes: [cat]}", "data.classes is for kind folder; kind demo has its own"),
        ("data: {prompts: {castle: fort}}", "data.prompts: 'castle' is no class"),
        (
            f"{PHOTOS}, root: ., classes: [hot dog, 'hot_dog ']}}}}",
            "'hot_dog ' is the same as 'hot dog'",
        ),
        ("score: {report_classes: [hous]}", "report_classes: 'hous' .*; did you mean 'house'"),
    ],
)
def test_check_covers_every_run_and_the_names_of_weights(
    tmp_path: Path,
    config: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "c.yaml").write_text(config)
    status = _run(["config", "check", "-c", str(tmp_path / "c.yaml")])
    assert re.search(f"(?s){message}", capsys.readouterr().err + caplog.text)
    assert status == (0 if "jobs that run here" in message else 1)


def _run(arguments: list[str]) -> int:
    """The exit status of the command line in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["wsss", *arguments])
        try:
            run(app)
        except SystemExit as error:
            return int(error.code or 0)
    return 0


def test_a_misspelt_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(tmp_path / CLASSES, class_list("demo"))
    sample = Sample("a", "train", tmp_path / "a.jpg", 8, 8, "0" * 64, (0,))
    write_manifest(tmp_path / MANIFEST, [sample], class_list("demo").names)
    (tmp_path / "c.yaml").write_text("{}")
    out = tmp_path / "out.h5"
    options = ["--manifest", str(tmp_path), "--out", str(out), "-c", str(tmp_path / "c.yaml")]
    assert _run(["cams", *options, "--cache", str(tmp_path), "--split", "vall"]) == 1
    assert "no image of split 'vall', only train (1 images)" in capsys.readouterr().err
    assert not out.exists()


def test_what_holds_no_records_is_not_to_be_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    readme = str(ROOT / "README.md")
    assert _run(["difference", readme, readme]) == 1
    message = capsys.readouterr().err
    assert "holds no score records" in message
    assert "delete" not in message


@pytest.mark.parametrize("text", ["", "1", "0-of-2", "3-of-2", "a-of-b", "1-of-2-of-3", "-1-of-2"])
def test_bad_shard_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected INDEX-of-COUNT"):
        parse_shard(text)
    assert parse_shard("2-of-12") == (2, 12)


@pytest.mark.parametrize("command", ["refine-predict", "retrain-predict"])
def test_both_jobs_of_a_prediction_at_once_are_refused(command: str) -> None:
    files = ["--manifest", "m", "--checkpoint", "c", "--out", "o", "--planes-to", "p"]
    result = CliRunner().invoke(
        app, [command, *files, "--planes", "p", "-c", str(ROOT / "config.yaml")]
    )
    assert result.exit_code == 2
    assert "--planes-to and --planes are of two jobs" in " ".join(result.output.split())


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_declared_keys_and_modules_exist(stage: str) -> None:
    config = from_mapping({})
    assert len(STAGES[stage].select(config)) == len(STAGES[stage].reads)
    assert re.fullmatch(r"[0-9a-f]{64}", stage_code(stage, config))
    assert entry_modules(stage, config)


def test_without_a_refiner_its_commands_pass_the_cams_on(tmp_path: Path) -> None:
    """The same commands by hand with any method: masks read what refine-apply wrote."""
    (tmp_path / "none.yaml").write_text("refine: {method: none}\n")
    cams = tmp_path / "cams.h5"
    write_shard(
        cams, "cams", [Item("a", {"cam": np.zeros((1, 2, 2), np.float16)})], provenance("cams")
    )
    common = ["--manifest", str(tmp_path), "-c", str(tmp_path / "none.yaml")]
    checkpoint, out = tmp_path / "c.safetensors", tmp_path / "out/scores.h5"
    training = ["--log", str(tmp_path / "l.csv"), "--work", str(tmp_path / "work")]
    trained = CliRunner().invoke(
        app, ["refine-train", str(cams), "--out", str(checkpoint), *training, *common]
    )
    assert (trained.exit_code, "nothing is trained" in trained.output) == (0, True)
    assert not checkpoint.exists()
    applied = CliRunner().invoke(
        app,
        ["refine-apply", str(cams), "--checkpoint", str(checkpoint), "--out", str(out), *common],
    )
    assert applied.exit_code == 0, applied.output
    assert out.read_bytes() == cams.read_bytes()


def test_the_command_line_may_open_many_files() -> None:
    program = (
        "import resource, typer\n"
        "from wsss.cli.app import run\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def show() -> None: print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "run(app)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2000)),
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout == "2000 2000\n"
