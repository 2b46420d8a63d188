"""One process per work folder."""

import subprocess
import sys
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
        pytest.raises(ArtifactError, match=rf"another process trains there \(process {holder.pid}"),
        exclusive_lock(work),
    ):
        pass
    holder.kill()
    holder.wait()
    with exclusive_lock(work), exclusive_lock(tmp_path / "another"):
        pass
