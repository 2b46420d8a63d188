"""The command line."""

import json
from pathlib import Path

from typer.testing import CliRunner

from tools.demo_clip.__main__ import app
from wsss.demo.dataset import generate

runner = CliRunner()


def test_evaluate(tmp_path: Path) -> None:
    generate(tmp_path / "data", train=12, val=1)
    done = runner.invoke(app, ["evaluate", str(tmp_path / "data"), "--split", "train"])
    assert done.exit_code == 0
    assert json.loads(done.output)["images"] == 12


def test_pretrain_shows_progress_and_reports(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    done = runner.invoke(app, ["pretrain", str(out), "--effort", "0.001", "--scenes", "64"])
    assert done.exit_code == 0, done.output
    assert "drawing scenes" in done.output
    assert '"steps": 1' in done.output
    assert out.is_file()
