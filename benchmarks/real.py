"""What bfloat16 weights of the frozen encoder do to the CAMs of real photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.scoring import score
from wsss.artifacts.stage import STAGES
from wsss.cams.stage import run as make_cams
from wsss.config.load import from_mapping, load_config
from wsss.config.model import Config
from wsss.data.ingest.stage import ingest
from wsss.score.product import ProductName
from wsss.score.tables.rows import row_name

PRESET = Path(__file__).parent.parent / "workflow" / "presets" / "voc-subset.yaml"
_PRODUCTS: Sequence[ProductName] = ("cam", "affinity")


def compare_precisions(folder: Path, split: str = "val") -> dict[str, Any]:
    """Score CAMs made with float32 and with bfloat16 weights; prints both and the movement.

    Args:
        folder: for all intermediate files.
        split: part of the real photographs.

    Returns:
        By precision and row: the mIoU over all classes and over the preset's report classes,
        percent.
    """
    base = load_config(PRESET.parents[2] / "config.yaml", PRESET)
    ingest(folder / "manifest", variant=base.variant, data=base.data, compute=base.compute)
    figures = {name: _scores(base, name, folder, split) for name in ("float32", "bfloat16")}
    table = Table("row", "float32", "bfloat16", "movement", title=f"mIoU, percent, {split}")
    for row, exact in figures["float32"].items():
        rounded = figures["bfloat16"][row]
        table.add_row(row, f"{exact:.2f}", f"{rounded:.2f}", f"{rounded - exact:+.2f}")
    Console(width=100).print(table)
    return figures


def _scores(base: Config, precision: str, folder: Path, split: str) -> dict[str, float]:
    settings = base.model_dump(mode="json")
    settings["clip"]["precision"] = precision
    config = from_mapping(settings)
    shard = folder / f"{precision}.h5"
    arguments = STAGES["cams"].arguments(config)
    make_cams(folder / "manifest", split, (1, 1), shard, folder / "cache", **arguments)
    figures: dict[str, float] = {}
    for product in _PRODUCTS:
        out = folder / f"{precision}.{product}.json"
        for record in score(product, config, folder / "manifest", split, [shard], out):
            row = row_name(record)
            figures[f"{row}, all classes"] = _percent(record.miou)
            ious = [record.iou[name] for name in record.report_classes]
            figures[f"{row}, report classes"] = _percent(
                sum(value or 0.0 for value in ious) / max(1, len(ious))
            )
    return figures


def _percent(share: float | None) -> float:
    return float("nan") if share is None else 100 * share
