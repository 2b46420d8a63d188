"""What `wsss photos` and the commands next to it refuse before anything starts, and how."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.photos.test_photo_run import CLIP, draw_photos, run, write_tags
from wsss.pipeline.engine import workflow_folder

Refusal = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path) -> Refusal:
    """Runs a command next to a folder ``p`` of two photos with tags; what its one message says."""
    write_tags(tmp_path / "p", draw_photos(tmp_path / "p", {"a": 0, "b": 1}))

    def run_refused(*command: str) -> str:
        before = set(tmp_path.rglob("*"))
        done = run(tmp_path, *command, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert set(tmp_path.rglob("*")) == before
        assert done.stderr.startswith("error: ")
        return done.stderr.removeprefix("error: ").strip()

    return run_refused


@pytest.mark.parametrize("cores", ["0", "-1", "abc", "1.5", ""])
@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_numbers_of_cores(refusal: Refusal, cores: str, dry: tuple[str, ...]) -> None:
    message = refusal("wsss", "photos", "p", *CLIP, f"--cores={cores}", *dry)
    assert message == f"--cores: found {cores or 'nothing'}, expected a positive number or all"


@pytest.mark.workflow
@pytest.mark.parametrize("cores", ["0", "-1"])
def test_the_engine_refuses_numbers_of_cores(tmp_path: Path, cores: str) -> None:
    """It would wait for ever, with no word on the screen."""
    snakefile = str(workflow_folder() / "Snakefile")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", f"--cores={cores}", "--snakefile", snakefile],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"error: --cores: found {cores}, expected a positive number or all" in done.stderr
