"""The list of tests that `make check` leaves out: how it is made, and that pytest reads it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import medium

_SHOWN = """\
0.30s call     tests/a/test_a.py::TestA::test_parts[a 1]
0.25s setup    tests/a/test_a.py::TestA::test_parts[b]
12.00s call     tests/a/test_a.py::test_long
0.49s call     tests/a/test_a.py::test_short
3 passed in 13.04s
"""


def test_durations_of_all_cases_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medium, "LIST", tmp_path / "medium.txt")
    medium.write_list(_SHOWN.splitlines(keepends=True))
    expected = {"tests/a/test_a.py::TestA::test_parts", "tests/a/test_a.py::test_long"}
    assert medium.medium_tests() == expected
    with pytest.raises(SystemExit, match="stays as it is"):
        medium.write_list(["no tests ran\n"])
    assert medium.medium_tests() == expected


@pytest.mark.slow
def test_pytest_selects_them() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    options = ["-m", "medium", "tests/labels"]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [*command, *options], cwd=root, capture_output=True, text=True, check=True
    )
    collected = {medium.function_of(line) for line in done.stdout.splitlines() if "::" in line}
    assert collected == {name for name in medium.medium_tests() if name.startswith("tests/labels/")}
