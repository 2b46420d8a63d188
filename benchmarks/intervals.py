"""Time and memory of intervals over images: `python -m benchmarks.intervals`.

Invented counts of 1449 images with 21 labels (VOC val) and of 40,137 with 81 (COCO val), four to
five labels per image: the 1000 draws of one interval, against a loop that adds up the sparse counts
image by image (timed on a few draws, per draw), and the size of the file of counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.timing import peak_memory
from wsss.artifacts.provenance import Provenance
from wsss.score.metrics.bootstrap import RESAMPLES, draw, resampled
from wsss.score.metrics.confusion import metrics_of
from wsss.score.metrics.image_counts import (
    CountTable,
    ImageCounts,
    RowCounts,
    write_counts,
)

SETS = {"VOC val": (1449, 21), "COCO val": (40_137, 81)}
_LOOP_DRAWS = 2


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: 3)")
    options = parser.parse_args()
    print("| set | 1000 draws | a draw of the loop / one of ours | file | memory added |")
    print("|---|---:|---:|---:|---:|")
    for name, (images, labels) in SETS.items():
        table = invented(images, labels)
        before = peak_memory()
        whole, ratios = [], []
        for _ in range(options.rounds):
            start = time.perf_counter()
            ours = resampled([table])[0]
            whole.append(time.perf_counter() - start)
            start = time.perf_counter()
            theirs = looped(table, _LOOP_DRAWS)
            ratios.append((time.perf_counter() - start) / _LOOP_DRAWS * RESAMPLES / whole[-1])
            assert np.allclose(ours[:_LOOP_DRAWS], theirs)
        memory = (peak_memory() - before) / 2**20
        print(
            f"| {name} | {statistics.median(whole):.2f} s | {statistics.median(ratios):.0f} | "
            f"{file_size(table) / 1e6:.1f} MB | {memory:.0f} MiB |"
        )


def invented(images: int, labels: int) -> CountTable:
    """Counts with one to four classes per image, each confused with every other."""
    rng = np.random.default_rng(0)
    counts = ImageCounts(labels, CountTable)
    for index in range(images):
        classes = rng.choice(np.arange(1, labels), rng.integers(1, 5), replace=False)
        labels_of_image = np.r_[0, classes]
        matrix = np.zeros((labels, labels), np.int64)
        size = len(labels_of_image)
        cells = np.ix_(labels_of_image, labels_of_image)
        matrix[cells] = rng.integers(1, 20_000, (size, size))
        counts.add(f"{index:012d}", matrix)
    return counts.table()


def looped(table: CountTable, draws: int) -> list[float]:
    """The same draws, image by image."""
    weights = draw(np.random.default_rng(0), len(table.ids), 64)[:draws]
    mious = []
    for row in weights:
        total = np.zeros(table.labels**2, np.int64)
        for image, times in enumerate(row):
            cells = slice(*table.bounds[image : image + 2])
            total[table.cell[cells]] += times * table.count[cells]
        mious.append(metrics_of(total.reshape(table.labels, table.labels)).miou)
    return mious


def file_size(table: CountTable) -> int:
    """Bytes of the counts of one row on disk."""
    provenance = Provenance(stage="score", config={}, seed=0, code="", packages={})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.h5"
        tags = dict.fromkeys(table.ids, (0,))
        write_counts(path, {"single": RowCounts(table)}, provenance, tags)
        return path.stat().st_size


if __name__ == "__main__":
    main()
