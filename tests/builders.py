"""Artifacts on disk that no stage wrote, and a number of threads for a test."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, Shard, ShardWriter
from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import DEMO, Config
from wsss.config.safe_yaml import read_yaml
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample, write_manifest
from wsss.data.manifest_folder import CLASSES, MANIFEST, write_classes

_ROOT = Path(__file__).parents[1]
CLIP_ES: Final = overlay(
    DEMO,
    overlay(
        read_yaml(_ROOT / "workflow/presets/demo-clip-es.yaml"),
        {"name": "demo", "infer": {"scales": [1.0, 0.75]}},
    ),
)
"""Settings for small images and the demo's CLIP: affinity, no refiner, a small SegFormer."""


TINY: Final[dict[str, Any]] = {
    "refine": {
        "method": "weclip",
        "train": {"batch": 2, "warmup": 1, "checkpoint_every": 2, "threads": 1},
        "weclip": {"width": 16, "rfm_start": 2},
    },
    "infer": {"scales": [1.0]},
    "retrain": {"crop": 64, "batch": 2, "warmup": 1, "checkpoint_every": 2, "threads": 1},
    "predict": {"scales": [1.0]},
    "pictures": {"contact_images": 2},
}
"""A chain of all stages whose trainings take seconds, without the numbers of their steps."""


def clip_es_config(mapping: Mapping[str, Any], *, partial: bool = False) -> Config:
    """A configuration over `CLIP_ES`, for any kind of data."""
    return from_mapping(overlay(CLIP_ES, mapping), partial=partial)


def provenance(stage: str = "test", **fields: Any) -> Provenance:
    empty = {"config": {}, "seed": 0, "code": "", "packages": {}}
    return Provenance(stage=stage, **empty | fields)


def shard_state(path: Path) -> tuple[str, list[str], Provenance]:
    """Digest of the content of a shard, the keys of its items, and its provenance.

    The bytes of the file also depend on the order in which items came.
    """
    with Shard(path) as shard:
        return shard.content, [shard.key(image) for image in shard.ids], shard.provenance


def write_manifest_folder(folder: Path, classes: ClassList, samples: Iterable[Sample]) -> Path:
    write_classes(folder / CLASSES, classes)
    write_manifest(folder / MANIFEST, list(samples), classes.names)
    return folder


@dataclass
class SmallRun:
    """A manifest on disk, and what a test writes next to it."""

    folder: Path
    samples: list[Sample]
    names: ClassVar[tuple[str, ...]]

    @property
    def manifest_dir(self) -> Path:
        return self.folder / "manifest"

    def write_manifest(self) -> None:
        classes = ClassList("tiny", self.names, self.names, ("sky",))
        write_manifest_folder(self.manifest_dir, classes, self.samples)


def write_shard(
    path: Path, kind: str, items: Iterable[Item], origin: Provenance | None = None
) -> Path:
    items = list(items)
    ids = [item.id for item in items]
    with ShardWriter(path, kind=kind, ids=ids, provenance=origin or provenance()) as writer:
        for item in items:
            writer.add(item)
    return path
