"""Is the content independent of how the work is cut, and a training the same twice? On a CPU.

    python -m benchmarks.determinism --out results/determinism

CAMs and pseudo masks of the demo's images are computed for every number of shards, workers and
batch size; the digest of a row covers the content of each image, whichever shard holds it. Refiner
and segmenter are trained with one seed in processes of some numbers of threads. Prints a table in
Markdown; the exit code is 1 if a row differs. One worker means that everything happens in the
process of the stage itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="folder to work in; it is emptied")
    parser.add_argument("--images", type=int, default=16)
    options = parser.parse_args()
    # Here, because started processes import this module again.
    from benchmarks.cuts import differing, measure, table
    from wsss.masks import store

    # So few small images would not be worth processes; here they are used all the same.
    store._PIXELS_WORTH_A_PROCESS = 1
    different: list[str] = []
    for rows in measure(options.out, options.images):
        print(table(rows) + "\n", flush=True)
        different += differing(rows)
    print(f"different from the first: {', '.join(different) or 'none'}")
    return int(bool(different))


if __name__ == "__main__":
    raise SystemExit(main())
