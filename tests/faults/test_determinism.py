"""A reduced form of `python -m benchmarks.determinism` (table: docs/results/faults.md)."""

from pathlib import Path

import pytest

from benchmarks.cuts import differing, measure, table

pytestmark = pytest.mark.slow


def test_content_does_not_depend_on_the_division_of_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"shards": (1, 3), "workers": (1,), "batches": (1, 4), "trainings": ((1, 1), (2, 3))}
    cuts, trainings = measure(tmp_path / "d", 3, **few)
    with capsys.disabled():
        print(f"\n{len(cuts)} cuts and {len(trainings)} trainings have equal digests")
    assert len(cuts) == 4
    assert differing(cuts) == [], table(cuts)
    assert differing(trainings) == [], table(trainings)
    assert len({digest for row in (*cuts, *trainings) for digest in row.digests.values()}) == 4
