"""`kill -9` at random moments of every command that writes.

`WSSS_KILLS` is their number over all kinds: the figure in docs/results/faults.md. By default
one kill for each way of writing.
"""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from .chain import CHAIN, WAYS, Kind, digests, output_folder
from .conftest import Undisturbed

pytestmark = pytest.mark.slow
KINDS = CHAIN if "WSSS_KILLS" in os.environ else WAYS
KILLS = int(os.environ.get("WSSS_KILLS", str(len(KINDS))))
_IN_A_ROW = 3  # kills of the same work before it is finished


def test_kill_at_random_moments(
    undisturbed: Undisturbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    for index, kind in enumerate(KINDS):
        kills = KILLS // len(KINDS) + (index < KILLS % len(KINDS))
        _kill(undisturbed, kind, kills, tmp_path, counts)
    with capsys.disabled():
        print(
            f"\n{counts['kills']} kills of {len(KINDS)} kinds of commands: after "
            f"{counts['some']} of them outputs were there, all whole; {counts['workers']} worker "
            f"processes outlived their parent's end and ended with it, {counts['late']} wrote "
            f"after it; {counts['finished']} resumed runs, all with the digests of an undisturbed "
            f"one, {counts['resumed']} of {counts['trainings']} trainings from a checkpoint"
        )
    assert counts["kills"] == KILLS
    assert counts["late"] == 0


def _kill(
    undisturbed: Undisturbed, kind: Kind, kills: int, folder: Path, counts: Counter[str]
) -> None:
    """Kill one kind repeatedly; each run continues from the outputs of the killed one before."""
    moments = random.Random(f"kill {kind.name}")
    out = folder / kind.name.replace(" ", "-")
    command, expected = kind.command(undisturbed.base, out), undisturbed.expected[kind.name]
    seconds, remaining, in_a_row = undisturbed.seconds[kind.name], kills, 0
    while remaining:
        done = undisturbed.forks.run(
            command, kill_after=_moment(moments) * seconds, pools=kind.pools, watch=out
        )
        if done.code == 0:  # it was quicker than the undisturbed run
            seconds = done.seconds
            shutil.rmtree(out)
            continue
        assert done.code == -9, f"{kind.name}: {done.output}"
        assert done.survivors == 0, (
            f"{kind.name}: {done.survivors} processes live on without their parent"
        )
        assert not done.late, f"{kind.name}: was written by an orphan: {done.late}"
        remaining, in_a_row = remaining - 1, in_a_row + 1
        some = _accept(undisturbed, kind, out)
        counts.update(kills=1, workers=done.workers, some=some, late=len(done.late))
        if in_a_row == _IN_A_ROW or not remaining:
            done = undisturbed.forks.run(command, pools=kind.pools)
            assert done.code == 0, f"{kind.name}, resumed: {done.output}"
            assert digests(kind, out) == expected, kind.name
            assert not [path for path in out.rglob("*") if ".tmp-" in path.name]
            counts["finished"] += 1
            if "--work" in command:
                counts["trainings"] += 1
                counts["resumed"] += "going on after" in done.output or "resuming" in done.output
            shutil.rmtree(out)
            in_a_row = 0


def _moment(moments: random.Random) -> float:
    """A share of the undisturbed time; half of them fall where the results are written."""
    return moments.uniform(0.0, 1.0) if moments.random() < 0.5 else moments.uniform(0.7, 1.05)


def _accept(undisturbed: Undisturbed, kind: Kind, out: Path) -> bool:
    """Check that each output is absent or whole; returns whether any exists."""
    outputs = digests(kind, out)
    for name, digest in outputs.items():
        if kind.fills and (out / name).is_dir():  # file by file; the last file marks the end
            for path in (out / name).iterdir():
                whole = output_folder(undisturbed.base, kind) / name / path.name
                assert ".tmp-" in path.name or path.read_bytes() == whole.read_bytes(), path
        elif digest:
            expected = undisturbed.expected[kind.name][name]
            assert digest == expected, f"{kind.name}: {name} is there, but is another"
    return any(outputs.values())
