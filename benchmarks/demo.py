"""Does every step of the demo gain? `python -m benchmarks.demo results/demo [more runs …]`.

It prints the rows of finished runs with what each gains over the row before it, and ends with 1
where one loses: on the training images CAM, refiner and pseudo masks, which are told the tags; on
the held-out images, without tags, the refiner's own prediction and the segmenter. Several runs,
such as the seeds of a sweep, become means and standard deviations. `--floor` names a run whose
CAMs are those of the tags that CLIP itself predicts; the segmenter must be better than these, too.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.score.record import Record, read_records


@dataclass(frozen=True)
class Row:
    """A row of records, as ``scores/<file>.<split>.json`` has it."""

    title: str
    file: str
    split: str
    protocol: str = "single"

    def miou(self, run: Path) -> float:
        """The mIoU in percent, at the configured background rule."""
        name = f"scores/{self.file}.{self.split}.json"
        # What the runs of a sweep share lies above them.
        path = next((p for p in (run / name, run.parent / name) if p.exists()), run / name)
        records = read_records([path])
        miou = next(record.miou for record in records if self._is(record))
        return math.nan if miou is None else 100 * miou

    def _is(self, record: Record) -> bool:
        return record.protocol == self.protocol and not record.at_best_threshold


WITH_TAGS = tuple(
    Row(title, file, "train")
    for title, file in (("CAM", "cam"), ("refiner", "refined"), ("pseudo mask, CRF", "masks"))
)
FLOORS = (Row("CAM of CLIP's tags", "cam", "val"), Row("the same, CRF", "masks", "val"))
PROTOCOLS = {"without CRF": "multi", "CRF": "multi_crf"}


def main() -> None:
    """Parse the command line, print the rows, and exit with 1 where one loses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--floor", type=Path, nargs="*", default=[], help="runs with CLIP's tags")
    options = parser.parse_args()
    print("with the image's tags, train")
    gains = [_chain([(row, options.runs) for row in WITH_TAGS])]
    for (name, protocol), floor in zip(PROTOCOLS.items(), FLOORS, strict=True):
        print(f"without tags, val, {name}")
        chain = [
            (Row("refiner's prediction", "refiner", "val", protocol), options.runs),
            (Row("segmenter", "predictions", "val", protocol), options.runs),
        ]
        gains.append(_chain(chain))
        if options.floor:
            gains.append(_chain([(floor, options.floor), chain[-1]]))
    sys.exit(0 if all(gains) else 1)


def _chain(rows: Sequence[tuple[Row, Sequence[Path]]]) -> bool:
    """Print rows in their order; whether each is better than the one before."""
    gains, before = True, None
    for row, runs in rows:
        values = [row.miou(run) for run in runs]
        mean = statistics.mean(values)
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        gain = "" if before is None else f"{mean - before:+.1f}"
        print(f"  {row.title:<24}{mean:6.1f}{spread:<8}{gain:>8}")
        gains = gains and (before is None or mean > before)
        before = mean
    return gains


if __name__ == "__main__":
    main()
