"""Scores with what the stage of a product reads of a whole configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss.artifacts.stage import STAGES
from wsss.config.model import Config
from wsss.score.product import ProductName
from wsss.score.record import Record
from wsss.score.settings import Settings
from wsss.score.stage import run


def score(
    product: ProductName,
    config: Config,
    manifest: Path,
    split: str,
    shards: Sequence[Path],
    out: Path,
) -> list[Record]:
    """As `wsss.score.stage.run`."""
    values = STAGES[f"score_{product}"].select(config)
    settings = Settings(**values)
    return run(product, manifest, split, shards, out, settings, workers=config.compute.workers)
