"""Two processes that write the same output at once: no interference, or one message."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from wsss.artifacts.exclusive_lock import exclusive_lock

from .chain import CHAIN, WAYS, digests
from .conftest import Undisturbed

pytestmark = pytest.mark.slow
_HELD = re.compile(r"error: \S+: another process works there \(process \d+ on .+\); wait for it")


def test_two_runs(
    undisturbed: Undisturbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    for kind in WAYS:
        out = tmp_path / "out"
        command = kind.command(undisturbed.base, out)
        both = undisturbed.forks.run_all([command, command], pools=kind.pools)
        refused = [done for done in both if done.code]
        for done in refused:
            assert "--work" in command, f"{kind.name}: {done.output}"
            assert done.code == 1
            assert _HELD.search(done.output), f"{kind.name}: {done.output}"
        assert len(refused) < 2
        assert digests(kind, out) == undisturbed.expected[kind.name], kind.name
        assert not [path for path in out.rglob("*") if ".tmp-" in path.name], kind.name
        counts["refused" if refused else "both"] += 1
        shutil.rmtree(out)
    with capsys.disabled():
        print(
            f"\nof {len(WAYS)} kinds of commands, started twice at once, {counts['both']} ended "
            f"well twice, {counts['refused']} refused the second; all outputs as of one alone"
        )
    assert counts["refused"] >= 1


def test_the_lock_of_a_work_folder(tmp_path: Path, undisturbed: Undisturbed) -> None:
    kind = next(kind for kind in CHAIN if kind.name == "refine-train")
    command = kind.command(undisturbed.base, tmp_path)
    with exclusive_lock(tmp_path / "work"):
        done = undisturbed.forks.run(command)
    assert done.code == 1
    assert _HELD.search(done.output), done.output
    done = undisturbed.forks.run(command)  # it is free again
    assert done.code == 0, done.output


def test_a_foreign_folder_is_not_replaced(tmp_path: Path, undisturbed: Undisturbed) -> None:
    """What is replaced as a whole must be of ours, and a file never replaces a folder."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "dear.jpg").write_text("dear")
    kind = next(kind for kind in CHAIN if kind.name == "masks")
    command = kind.command(undisturbed.base, tmp_path)
    command[command.index("--png") + 1] = str(photos)
    done = undisturbed.forks.run(command)
    assert done.code == 1
    assert f"error: {photos}: is replaced as a whole, but holds 'dear.jpg'" in done.output
    kind = next(kind for kind in CHAIN if kind.name == "score masks")
    command = kind.command(undisturbed.base, tmp_path)
    command[command.index("--out") + 1] = str(photos)
    done = undisturbed.forks.run(command)
    assert done.code == 1
    assert f"error: {photos}: cannot be written: Is a directory" in done.output
    assert (photos / "dear.jpg").read_text() == "dear"
