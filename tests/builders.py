"""Artifacts on disk that no stage wrote, and a number of threads for a test."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, ShardWriter
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample, write_manifest
from wsss.data.manifest_folder import CLASSES, MANIFEST, write_classes


def provenance(stage: str = "test", **fields: Any) -> Provenance:
    empty = {"config": {}, "seed": 0, "code": "", "packages": {}}
    return Provenance(stage=stage, **empty | fields)


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
