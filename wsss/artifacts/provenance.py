"""What an artefact was made from, and the key by which equal work is recognised."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict

from wsss.artifacts.digest import digest_json

_PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "timm", "transformers", "tokenizers", "ftfy",
    "regex", "numpy", "scipy", "scikit-learn", "pillow", "h5py", "pydensecrf2", "opencv-python",
    "pycocotools", "onedl-mmsegmentation", "onedl-mmengine", "onedl-mmcv",
)  # fmt: skip
_COMMON = ("manifest", "class_list")
"""Inputs that the stages of a run share."""
_ATTESTS = ("files", "outputs", "upstream")
"""They say more of what the other fields already determine; no key depends on them."""


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
    files: dict[str, str] = {}
    """sha256 of each weight file on this machine that the configuration names, by its key."""
    outputs: dict[str, str] = {}
    """sha256 of each file that was written with the artefact and carries no provenance."""
    upstream: tuple[Provenance, ...] = ()
    """How the artefacts that were read were made, back to the manifest; distinct ones, each with no
    upstream and with the `_COMMON` inputs alone."""

    def key(self) -> str:
        """Equal for equal work: everything but the inputs, which each item adds for itself."""
        return digest_json(self.model_dump(exclude={"inputs", *_ATTESTS}))

    def training_key(self) -> str:
        """Equal for trainings that learn the same: the inputs as well, but for the whole manifest,
        of which they use a part that they name."""
        inputs = {name: digest for name, digest in self.inputs.items() if name not in _COMMON}
        return digest_json(self.model_dump(exclude={"inputs", *_ATTESTS}) | {"inputs": inputs})

    def chain(self) -> tuple[Provenance, ...]:
        """This one as it stands in the upstream of others, then its upstream."""
        inputs = {name: self.inputs[name] for name in _COMMON if name in self.inputs}
        alone = self.model_copy(update={"inputs": inputs, "outputs": {}, "upstream": ()})
        return (alone, *self.upstream)


def merged_chains(sources: Iterable[Provenance]) -> tuple[Provenance, ...]:
    """The distinct entries of the chains of several artefacts."""
    entries = (entry for source in sources for entry in source.chain())
    return tuple({digest_json(entry.model_dump()): entry for entry in entries}.values())


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
