"""The command line of the demo."""

from pathlib import Path

from typer.testing import CliRunner

from wsss.__main__ import app

runner = CliRunner()


def test_make(tmp_path: Path) -> None:
    done = runner.invoke(
        app, ["demo", "make", str(tmp_path / "d"), "--train", "2", "--val", "1", "--quiet"]
    )
    assert done.exit_code == 0
    assert "2 training and 1 held-out images" in done.output
    assert (tmp_path / "d" / "demo.json").is_file()
