"""Every failure to write becomes one message, whichever library raised it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors import SafetensorError

from wsss.artifacts.atomic import (
    atomic_path,
    remove_abandoned,
    temporary_path,
    write_one_of_many,
    write_text,
)
from wsss.artifacts.errors import WriteError
from wsss.artifacts.failsafe_file import FailsafeFile
from wsss.artifacts.write_errors import writing

FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError("Can't write data (file write failed: errno = 28, error message = 'No space left')"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_is_reported(tmp_path: Path, error: Exception) -> None:
    target = tmp_path / "a.h5"

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    write_text(target, "old")
    with pytest.raises(
        WriteError,
        match=r"a\.h5: cannot be written: .+ MiB free without it\); free space.+ unchanged",
    ) as caught:
        write()
    assert caught.value.__cause__ is error
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.h5"]


def test_other_errors_are_not_changed(tmp_path: Path) -> None:
    def missing() -> None:
        (tmp_path / "else/where.jpg").read_bytes()

    def wrong() -> None:
        raise ValueError("28 things")

    for fail, kind in ((missing, FileNotFoundError), (wrong, ValueError)):
        with pytest.raises(kind), writing(tmp_path / "out" / "a.h5"):
            fail()


def _on_a_file(folder: Path) -> Path:
    (folder / "wall").write_text("")
    return folder / "wall" / "deep" / "a.txt"


def _a_folder(folder: Path) -> Path:
    (folder / "full").mkdir()
    (folder / "full" / "dear").write_text("dear")
    return folder / "full"


def _long(folder: Path) -> Path:
    return folder / ("x" * 300)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_on_a_file, "Not a directory; something on the way there is a file"),
        (_a_folder, "Is a directory; there is a folder of this name"),
        (_long, "File name too long; choose a shorter name"),
    ],
)
@pytest.mark.parametrize(
    "write",
    [lambda path: write_text(path, "x"), lambda path: write_one_of_many(path, b"x")],
    ids=["text", "one of many"],
)
def test_obstacles_are_reported(
    tmp_path: Path,
    make: Callable[[Path], Path],
    message: str,
    write: Callable[[Path], None],
) -> None:
    with pytest.raises(WriteError, match=message):
        write(make(tmp_path))
    if (tmp_path / "full").exists():
        assert (tmp_path / "full" / "dear").read_text() == "dear"


def test_hdf5_does_not_see_that_writing_fails(tmp_path: Path) -> None:
    sink = FailsafeFile(tmp_path / "a.h5")
    file = h5py.File(sink, "w")
    file["a"] = np.arange(5000)
    sink._remember(OSError(errno.ENOSPC, "full"))
    for name in "bcdefgh":
        file.create_dataset(name, data=np.arange(90_000), compression="gzip")
    file.close()
    sink.close()
    with pytest.raises(OSError, match=r"full: '.*a\.h5'"):
        sink.check()


def test_temporary_names(tmp_path: Path) -> None:
    for name in ("a.h5", "ä" * 120, "x" * 250):
        assert len(os.fsencode(temporary_path(tmp_path / name).name)) < 256
    write_text(tmp_path / ("x" * 250), "long")
    assert (tmp_path / ("x" * 250)).read_text() == "long"
    mine, other = ".b.tmp-999999999", ".b.tmp-elsewhere-17"
    strangers = [".b.tmp-notes", "b.tmp-999999999", ".tmp-1"]
    for name in (mine, other, *strangers):
        (tmp_path / name).write_text("")
    remove_abandoned(tmp_path)
    names = set(os.listdir(tmp_path))
    assert mine not in names
    assert {other, *strangers} <= names  # another machine's may still be written
    os.utime(tmp_path / other, (0, 0))
    remove_abandoned(tmp_path)
    assert other not in os.listdir(tmp_path)
