"""Whose locks an engine removes when it starts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsss.pipeline.engine_lock import engine_runs, engines_died

_ENGINE = """
import sys
from pathlib import Path
from wsss.pipeline.engine_lock import remove_dead_locks
print(remove_dead_locks(Path(sys.argv[1])), flush=True)
if "stay" in sys.argv:
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock of Snakemake, left by an engine that was killed."""
    _engine(tmp_path)
    path = tmp_path / ".snakemake/locks/0.output.lock"
    path.parent.mkdir()
    path.write_text("results/a\n")
    return path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[None]:
    """An engine that runs there."""
    engine = subprocess.Popen(
        [sys.executable, "-c", _ENGINE, str(tmp_path), "stay"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert engine.stdout
    engine.stdout.readline()
    yield
    engine.communicate()


def _engine(folder: Path) -> str:
    command = [sys.executable, "-c", _ENGINE, str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_locks_of_a_dead_engine(tmp_path: Path, lock: Path) -> None:
    assert not engine_runs(tmp_path)
    assert engines_died(tmp_path)
    assert _engine(tmp_path) == "True"
    assert not lock.exists()
    assert _engine(tmp_path) == "False"  # there are none


def test_the_locks_of_a_running_engine(tmp_path: Path, running: None, lock: Path) -> None:
    assert _engine(tmp_path) == "False"
    assert lock.exists()
    assert engine_runs(tmp_path)
    assert not engines_died(tmp_path)


def test_the_locks_of_an_engine_elsewhere(tmp_path: Path, lock: Path) -> None:
    with (tmp_path / ".snakemake/wsss-engines").open("a") as stream:
        stream.write("another-host pid:[4026531836]\n")
    assert _engine(tmp_path) == "False"
    assert lock.exists()
    lock.unlink()  # that engine ended
    _engine(tmp_path)
    lock.write_text("results/a\n")
    assert _engine(tmp_path) == "True"


def test_locks_of_engines_that_hold_none_of_ours(tmp_path: Path, lock: Path) -> None:
    (tmp_path / ".snakemake/wsss-engines").unlink()
    assert _engine(tmp_path) == "False"
    assert lock.exists()


def test_the_file_of_another_user_says_nothing(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / ".snakemake/wsss-engines").chmod(0o444)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            Path(".snakemake/wsss-engines").write_text("", "utf-8")
        assert not engine_runs(Path())
        assert not engines_died(Path())
    finally:
        os.seteuid(user)
