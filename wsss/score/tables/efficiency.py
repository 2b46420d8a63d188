"""The cost of a training next to published ones: Markdown, CSV and HTML."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from wsss.artifacts.checksum import verified_json
from wsss.artifacts.errors import ArtifactError
from wsss.refine.training.efficiency import Efficiency
from wsss.score.tables.rows import Table
from wsss.score.tables.write import Texts, csv_text, table_texts, write_table

COSTS: dict[str, Callable[[Efficiency], float | None]] = {
    "trained_parameters": lambda cost: cost.trained_parameters / 1e6,
    "parameters": lambda cost: cost.parameters / 1e6,
    "trained_share": lambda cost: 100 * cost.trained_parameters / cost.parameters,
    "images_per_second": lambda cost: cost.images_per_second,
    "peak_memory": lambda cost: cost.peak_memory / 2**30,
}
"""Numbers of a training in the unit of the tables: millions, percent, per second, GiB."""
_COLUMNS = (
    "training", "trained parameters, M", "all parameters, M", "trained share, %",
    "images per second", "peak memory, GiB", "device",
)  # fmt: skip
_PUBLISHED = (
    ("MCTformer's affinity network, published", "105.3", "105.3", "100.0", "3.9", "30.7", ""),
    ("WeakCLIP, published", "21.2", "171.5", "12.4", "16.8", "9.7", ""),
)
NOTES = (
    "Parameters: trained on top of CLIP, and of all that a forward pass uses. Images per second: "
    "training crops. Peak memory: allocated on a GPU, of the whole process on a CPU.",
    "Published: the authors' table for VOC 2012 with ViT-B/16 and crops of 512; their number and "
    "kind of GPUs is not given, so that speed and memory do not compare across machines.",
    "An empty cell is not known: a training that was resumed for its last steps only has no speed.",
)


def make_efficiency(path: Path, out_dir: Path) -> list[Path]:
    """Write ``efficiency.md``, ``efficiency.csv`` and ``efficiency.html``.

    Returns:
        The files written.

    Raises:
        ArtifactError: the file is missing or holds something else.
    """
    return write_table(out_dir, "efficiency", efficiency_table(path))


def efficiency_table(path: Path) -> Texts:
    """The table of `make_efficiency`, which writes it."""
    rows = (_row(read_efficiency(path)), *_PUBLISHED)
    table = Table("What the training cost", NOTES, _COLUMNS, rows, (), ())
    numbers = csv_text([dict(zip(_COLUMNS, row, strict=True)) for row in rows])
    return table_texts(table, numbers)


def read_efficiency(path: Path) -> Efficiency:
    """Read what refine-train wrote.

    Raises:
        ArtifactError: the file is missing or holds something else.
    """
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored is not None:  # null: there was nothing to train
            stored = verified_json(stored, path, "rerun refine-train")
        return Efficiency.model_validate(stored)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; run refine-train first") from None
    except (ValidationError, ValueError) as error:
        raise ArtifactError(
            f"{path}: does not say what a training cost ({str(error).splitlines()[0]}); rerun "
            "refine-train with a refiner that is trained"
        ) from None


def _row(cost: Efficiency) -> tuple[str, ...]:
    numbers = [number(cost) for number in COSTS.values()]
    texts = ("" if number is None else f"{number:.1f}" for number in numbers)
    return (f"{cost.method}, ours", *texts, cost.device)
