"""One process at a time in a folder."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.exclusive_lock import exclusive_lock

_HOLD = """
import sys, time
from pathlib import Path
from wsss.artifacts.exclusive_lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    work = tmp_path / "work"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(work)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(ArtifactError, match=rf"another process works there \(process {holder.pid}"),
        exclusive_lock(work),
    ):
        pass
    holder.kill()
    holder.wait()
    with exclusive_lock(work), exclusive_lock(tmp_path / "another"):
        pass


_HOLD_UNTIL_TOLD = """
import sys
from pathlib import Path
from wsss.artifacts.exclusive_lock import exclusive_lock
folder = Path(sys.argv[1])
with exclusive_lock(folder):
    print("held", flush=True)
    sys.stdin.read()
    (folder / "written").touch()
"""


def test_a_writer_waits_for_another_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD_UNTIL_TOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout.readline() == b"held\n"
    ending = threading.Timer(0.3, holder.stdin.close)
    ending.start()
    with exclusive_lock(tmp_path, wait=True):
        assert (tmp_path / "written").exists()
    ending.join()
    holder.wait()
    assert f"waiting for process {holder.pid}" in caplog.text
