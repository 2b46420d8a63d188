"""What an artifact was made from, and the key by which equal work is recognised."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from wsss.artifacts.digest import digest_file, digest_json
from wsss.config.base import LEARNED_FROM, LearnedFrom, learned_from
from wsss.config.clip import folder_files
from wsss.config.paths import expand_path

DISTRIBUTIONS: Final = MappingProxyType({
    "PIL": "pillow", "cv2": "opencv-python-headless", "ftfy": "ftfy", "matplotlib": "matplotlib",
    "mmcv": "onedl-mmcv", "mmengine": "onedl-mmengine", "mmseg": "onedl-mmsegmentation",
    "numpy": "numpy", "open_clip": "open_clip_torch", "pycocotools": "pycocotools",
    "pydensecrf": "pydensecrf2", "regex": "regex", "scipy": "scipy", "sklearn": "scikit-learn",
    "timm": "timm", "tokenizers": "tokenizers", "torch": "torch", "torchvision": "torchvision",
    "transformers": "transformers",
})  # fmt: skip
"""Packages that can change a result, by the name that code imports: the name that pip installs."""
BROUGHT_BY: Final = MappingProxyType({
    "open_clip": frozenset({"ftfy", "regex", "timm", "tokenizers", "torchvision", "transformers"}),
    "mmseg": frozenset({"mmcv", "mmengine"}),
})  # fmt: skip
"""Those that such a package runs."""
_FILES = (
    *("clip.model", "clip.pretrained", "dino.model", "dino.pretrained"),
    *("refine.checkpoint", "retrain.init", "cams.patch_text.tse.knowledge"),
)
"""Keys that may name a file on this machine: weights, or descriptions of classes."""
_COMMON = ("manifest", "class_list")
"""Inputs that the stages of a run share."""
_ATTESTS = ("files", "outputs", "device", "learned", "upstream")
"""They say more of what the other fields already determine; no key depends on them."""


class Provenance(BaseModel):
    """What an artifact was made from; every artifact carries it."""

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
    """Digest of each artifact that was read."""
    files: dict[str, str] = {}
    """sha256 of each weight file on this machine that the configuration names; see
    `weight_files`."""
    outputs: dict[str, str] = {}
    """sha256 of each file that was written with the artifact and carries no provenance."""
    device: str = ""
    """Kind of the device that computed, such as ``cuda``; empty for a CPU."""
    learned: dict[str, int] = {}
    """Of a training on masks of several kinds: the number of images that each kind taught."""
    upstream: tuple[Provenance, ...] = ()
    """How the artifacts that were read were made, back to the manifest; distinct ones, each with no
    upstream and with the `_COMMON` inputs alone."""

    @property
    def supervision(self) -> LearnedFrom:
        """``masks`` where the artifact, or one that it was made from, learned from pixel labels,
        ``mixed`` where from those of some images."""
        kinds = {learned_from(entry.config) for entry in (self, *self.upstream)}
        return max(kinds, key=LEARNED_FROM.index)

    def key(self) -> str:
        """Equal for equal work: everything but the inputs, which each item adds for itself."""
        return digest_json(self.model_dump(exclude={"inputs", *_ATTESTS}))

    def digest(self) -> str:
        """Equal for what was made at once: everything but the files beside it."""
        return digest_json(self.model_dump(exclude={"outputs"}))

    def training_key(self, learned: Mapping[str, Any]) -> str:
        """Equal for trainings that end alike.

        Args:
            learned: digests of all that the training reads, in its order, whichever shards and
                folders it comes from; values for JSON.
        """
        return digest_json([self.key(), learned])

    def chain(self) -> tuple[Provenance, ...]:
        """This one as it stands in the upstream of others, then its upstream."""
        inputs = {name: self.inputs[name] for name in _COMMON if name in self.inputs}
        alone = self.model_copy(update={"inputs": inputs, "outputs": {}, "upstream": ()})
        return (alone, *self.upstream)


def merged_chains(sources: Iterable[Provenance]) -> tuple[Provenance, ...]:
    """The distinct entries of the chains of several artifacts."""
    entries = (entry for source in sources for entry in source.chain())
    return tuple({digest_json(entry.model_dump()): entry for entry in entries}.values())


@functools.cache
def package_versions(imports: frozenset[str] = frozenset(DISTRIBUTIONS)) -> dict[str, str]:
    """Versions of Python, without the patch, and of packages that can change a result.

    Args:
        imports: names of `DISTRIBUTIONS`; those that are not installed are left out.
    """
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for name in sorted(DISTRIBUTIONS[package] for package in imports):
        if version := _installed_version(name):
            versions[name] = version
    return versions


@functools.cache  # the engine asks for each stage, and each answer reads the package's metadata
def _installed_version(distribution: str) -> str:
    """The version of a package; empty where it is not installed."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(distribution)
    return ""


def weight_files(config: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the weight files that some sections or single keys name, by key.

    Files of the folder of a CLIP, or of its tokenizer, have their name after the key.
    """
    digests = {}
    for key in _FILES:
        section, *names = key.split(".")
        value = config.get(section, {})
        for name in names:
            value = value.get(name) or {}
        text = config.get(key) or value
        if text and os.path.isfile(path := expand_path(text)):
            digests[key] = _digest(path)
        if text and key == "clip.model":
            digests |= {
                f"{key}/{path.name}": _digest(path) for path in map(Path, folder_files(text))
            }
    return digests


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_once(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache
def _digest_once(path: Path, _size: int, _changed: int) -> str:
    return digest_file(path)
