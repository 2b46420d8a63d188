"""Is the content the same however the work is cut, and a training the same twice? On a CPU.

    python -m benchmarks.determinism --out results/determinism

CAMs and pseudo masks of the demo's images are made for every number of shards, workers and batch
size; the digest of a row is over the content of each image, whichever shard holds it. Refiner and
segmenter are trained twice with one seed. Prints a table in Markdown; exit code 1 if a row differs.
One worker means that all happens in the process of the stage itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="folder to work in; is emptied")
    parser.add_argument("--images", type=int, default=16)
    given = parser.parse_args()
    # Here, since the processes that are started import this module again.
    from benchmarks.cuts import differing, measure, table
    from wsss.masks import store

    # So few small images would not be worth processes; here they are to be used.
    store._PIXELS_WORTH_A_PROCESS = 1
    wrong = []
    for rows in measure(given.out, given.images):
        print(table(rows) + "\n", flush=True)
        wrong += differing(rows)
    print(f"different from the first: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
