"""Shards are read and written where the file system gives no locks."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.builders import write_shard
from wsss.artifacts.shard import Item, Shard

_READ = """
import sys
from pathlib import Path
from wsss.artifacts.shard import Shard
with Shard(Path(sys.argv[1])) as shard:
    print(len(list(shard)))
"""


def test_a_shard_is_read_without_its_lock(tmp_path: Path) -> None:
    """Another holder of the lock stands in for a file system without locks."""
    path = tmp_path / "1-of-1.h5"
    write_shard(path, "masks", [Item("a", {"label": np.zeros((3, 4), np.uint8)})])
    with path.open("rb+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with Shard(path) as shard:
            assert shard.ids == ["a"]
        environment = {k: v for k, v in os.environ.items() if k != "HDF5_USE_FILE_LOCKING"}
        command = [sys.executable, "-c", _READ, str(path)]
        fresh = subprocess.run(command, env=environment, capture_output=True, text=True)
        plain = f"import h5py; h5py.File({str(path)!r})"
        other = subprocess.run(
            [sys.executable, "-c", plain], env=environment, capture_output=True, text=True
        )
    assert fresh.stdout.strip() == "1", fresh.stderr
    assert "unable to lock file" in other.stderr  # what would happen without the remedy
