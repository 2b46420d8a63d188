"""What an artefact was made from, and the key by which equal work is recognised."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict

from wsss.artifacts.digest import digest_json

_PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "timm", "transformers", "tokenizers", "ftfy",
    "regex", "numpy", "scipy", "scikit-learn", "pillow", "h5py", "pydensecrf2", "opencv-python",
    "pycocotools", "onedl-mmsegmentation", "onedl-mmengine", "onedl-mmcv",
)  # fmt: skip


class Provenance(BaseModel):
    """What an artefact was made from; every artefact carries it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    config: dict[str, Any]
    """The effective sections that the stage reads."""
    seed: int
    code: str
    """Digest of the source files that the stage imports."""
    packages: dict[str, str]
    weights: dict[str, str] = {}
    """sha256 of each weight file that was used."""
    inputs: dict[str, str] = {}
    """Digest of each artefact that was read."""

    def key(self) -> str:
        """Equal for equal work: everything but the inputs, which each item adds for itself."""
        return digest_json(self.model_dump(exclude={"inputs"}))

    def training_key(self, learned: Mapping[str, Any]) -> str:
        """Equal for trainings that end alike.

        Args:
            learned: digests of all that the training reads, in its order, whichever shards and
                folders it comes from; values for JSON.
        """
        return digest_json([self.key(), learned])


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
