"""The command line of the demo."""

import json
from pathlib import Path

from typer.testing import CliRunner

from wsss.demo.app import app

runner = CliRunner()


def test_make(tmp_path: Path) -> None:
    done = runner.invoke(
        app, ["make", str(tmp_path / "d"), "--train", "2", "--val", "1", "--quiet"]
    )
    assert done.exit_code == 0
    assert "2 training and 1 held-out images" in done.output
    assert (tmp_path / "d" / "demo.json").is_file()


def test_evaluate(demo_root: Path) -> None:
    done = runner.invoke(app, ["evaluate", str(demo_root), "--split", "train"])
    assert done.exit_code == 0
    assert json.loads(done.output)["images"] == 12


def test_pretrain_shows_progress_and_reports(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    done = runner.invoke(app, ["pretrain", str(out), "--effort", "0.001", "--scenes", "64"])
    assert done.exit_code == 0, done.output
    assert "drawing scenes" in done.output
    assert '"steps": 1' in done.output
    assert out.is_file()


def test_help_names_the_commands() -> None:
    shown = runner.invoke(app, ["--help"]).output
    assert all(command in shown for command in ("make", "pretrain", "evaluate"))
