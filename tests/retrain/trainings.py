"""A training of the stage in a folder, and its interruption."""

import hashlib
from pathlib import Path
from typing import Any

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.stage import STAGES
from wsss.config.model import Config
from wsss.retrain.train import train

Result = tuple[str, str]


class Killed(BaseException):
    """Stands for a signal."""


def run(
    data: Any,
    config: Config,
    folder: Path,
    masks: list[Path] | None = None,
    corrected: Path | None = None,
) -> Result:
    """Train in a folder; digest of the weights and the text of the curve."""
    out, log = folder / "segmenter.safetensors", folder / "curve.csv"
    values = STAGES["retrain"].select(config) | {"compute": config.compute}
    paths = (masks or data.masks(), out, log, folder / "work", None, corrected)
    train(data.manifest_dir, *paths, **values)
    tensors, _ = load_checkpoint(out)
    content = b"".join(name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors))
    return hashlib.sha256(content).hexdigest(), log.read_text()
