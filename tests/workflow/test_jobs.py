"""Jobs that fork from a server say and return what the interpreter itself would."""

import subprocess
import sys
from pathlib import Path

import pytest

from .jobs import python_of_jobs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-m", "wsss", "--version"], 0),
        (["-m", "wsss", "cam"], 2),
        (["-m", "wsss", "config", "check", "-c", "none.yaml"], 1),
        (["-c", "import sys; print(sys.argv); sys.exit(3)", "a b"], 3),
    ],
)
def test_as_the_interpreter(arguments: list[str], code: int, tmp_path: Path) -> None:
    def run(python: str | Path) -> tuple[int, str, str]:
        done = subprocess.run([python, *arguments], cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert run(python_of_jobs()) == run(sys.executable)
    assert run(python_of_jobs())[0] == code
