"""A full disk, a limit on file sizes, folders that cannot be written: one message, no loss."""

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machines import disk_in_memory

from .chain import KINDS, WAYS, Kind, digests, output_folder
from .conftest import Undisturbed

pytestmark = pytest.mark.slow
SIZES = int(os.environ.get("WSSS_DISK_SIZES", "1"))
"""How many sizes of disk, and limits on files, each kind is tried with."""
_PAGE = 4096
_MESSAGE = re.compile(
    r"error: (\S+): cannot be written: (.+?)(?: \([\d.]+ MiB free without it\))?; .+"
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A separate file system in memory."""
    with disk_in_memory(tmp_path_factory.mktemp("disk"), "400m") as folder:
        yield folder


def _resize(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_full_disk(
    undisturbed: Undisturbed, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command fails on a disk that is too small, and completes once there is space."""
    counts: Counter[str] = Counter()
    for kind in WAYS:
        out = disk / "out"
        needed = sum(-(-size // _PAGE) * _PAGE for size in _sizes(undisturbed, kind))
        moments = random.Random(f"disk {kind.name}")
        for index in range(SIZES):
            share = (index + moments.random()) / SIZES
            used = shutil.disk_usage(disk).used
            room = int(share * needed) // _PAGE * _PAGE
            _resize(disk, f"size={max(used + room, _PAGE)}")
            _fail(undisturbed, kind, out, counts, "No space left on device")
            _resize(disk, "size=400m")
        _recover(undisturbed, kind, out, counts)
        shutil.rmtree(out)
    _report(capsys, counts, "full disks")


def test_a_limit_on_the_size_of_files(
    undisturbed: Undisturbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RLIMIT_FSIZE, which needs no root; where a disk can be mounted, a sample is enough."""
    counts: Counter[str] = Counter()
    for kind in KINDS[:: 1 if SIZES > 1 or os.getuid() else 4]:
        out = tmp_path / "out"
        largest = max(_sizes(undisturbed, kind))
        if largest <= 2 * _PAGE:  # the messages of a command must fit into the limit as well
            counts["too small"] += 1
            continue
        moments = random.Random(f"limit {kind.name}")
        for _ in range(SIZES):
            limit = moments.randrange(_PAGE, largest)
            _fail(undisturbed, kind, out, counts, "File too large", limit)
        _recover(undisturbed, kind, out, counts)
        shutil.rmtree(out)
    _report(capsys, counts, "limits")


@pytest.mark.parametrize("obstacle", ["a file", "read-only"])
def test_a_folder_that_cannot_be_written(
    undisturbed: Undisturbed,
    tmp_path: Path,
    obstacle: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Modes would not do: root may write anywhere."""
    if obstacle == "a file":
        (tmp_path / "wall").write_text("a file")
        out, reasons = tmp_path / "wall" / "out", ("Not a directory", "File exists")
        with _nothing():
            counts = _refused(undisturbed, WAYS, out, reasons)
    else:
        disk = request.getfixturevalue("disk")
        with _read_only(disk):
            counts = _refused(undisturbed, KINDS, disk / "out", ("Read-only file system",))
    with capsys.disabled():
        print(f"\n{obstacle} in the way: {counts} kinds say so")


def _refused(
    undisturbed: Undisturbed, kinds: Sequence[Kind], out: Path, reasons: tuple[str, ...]
) -> int:
    for kind in kinds:
        done = undisturbed.forks.run(kind.command(undisturbed.base, out), pools=kind.pools)
        _clear(kind, done.code, done.output, out, reasons)
    return len(kinds)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _read_only(disk: Path) -> Iterator[None]:
    _resize(disk, "ro")
    try:
        yield
    finally:
        _resize(disk, "rw")


def _fail(
    undisturbed: Undisturbed,
    kind: Kind,
    out: Path,
    counts: Counter[str],
    reason: str,
    limit: int | None = None,
) -> None:
    command = kind.command(undisturbed.base, out)
    tidy = any(name.endswith(".h5") for name in kind.outputs)  # HDF5 might crash at the very end
    done = undisturbed.forks.run(command, limit=limit, pools=kind.pools, tidy=tidy)
    counts["tried"] += 1
    if done.code == 0:  # it was enough
        assert digests(kind, out) == undisturbed.expected[kind.name], kind.name
        counts["enough"] += 1
        shutil.rmtree(out)
        return
    _clear(kind, done.code, done.output, out, (reason,))
    counts["said"] += 1
    assert done.survivors == 0
    whole = undisturbed.expected[kind.name]
    for name, digest in digests(kind, out).items():
        assert kind.fills or not digest or digest == whole[name], f"{kind.name}: {name} is broken"
    assert not [path for path in out.rglob("*") if ".tmp-" in path.name], kind.name


def _clear(kind: Kind, code: int, output: str, out: Path, reasons: tuple[str, ...]) -> None:
    """Check that there is one message with file, cause and remedy."""
    assert code == 1, f"{kind.name}: ended with {code}: {output}"
    assert "Traceback" not in output, f"{kind.name}: {output}"
    messages = [match for line in output.splitlines() if (match := _MESSAGE.match(line))]
    assert len(messages) == 1, f"{kind.name}: {output}"
    assert messages[0][2] in reasons, f"{kind.name}: {output}"
    assert str(out) in messages[0][1] or messages[0][1] in str(out), f"{kind.name}: {output}"


def _recover(undisturbed: Undisturbed, kind: Kind, out: Path, counts: Counter[str]) -> None:
    done = undisturbed.forks.run(kind.command(undisturbed.base, out), pools=kind.pools)
    assert done.code == 0, f"{kind.name}: {done.output}"
    assert digests(kind, out) == undisturbed.expected[kind.name], kind.name
    counts["recovered"] += 1


def _sizes(undisturbed: Undisturbed, kind: Kind) -> list[int]:
    """Bytes of each file among the outputs of a kind."""
    there = [output_folder(undisturbed.base, kind) / name for name in kind.outputs]
    files = [file for path in there for file in [path, *path.rglob("*")]]
    return [file.stat().st_size for file in files if file.is_file()]


def _report(capsys: pytest.CaptureFixture[str], counts: Counter[str], what: str) -> None:
    with capsys.disabled():
        print(
            f"\n{counts['tried']} {what}: {counts['said']} clear messages, {counts['enough']} were "
            f"enough; {counts['recovered']} kinds went on to the same digests; "
            f"{counts['too small']} kinds write too little"
        )
    assert counts["said"] + counts["enough"] == counts["tried"]
    assert counts["said"] > counts["enough"]
