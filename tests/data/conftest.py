"""Tiny data sets on disk."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.ingest.stage import IngestReport, ingest
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load


def picture(seed: int = 0, height: int = 12, width: int = 16) -> np.ndarray:
    """A smooth picture, so that JPEG keeps it closely."""
    rng = np.random.default_rng(seed)
    corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    return np.array(corners.resize((width, height), Image.Resampling.BILINEAR))


def make_config(data: dict[str, Any]) -> Config:
    """A configuration whose section ``data`` may be without a held-out list."""
    common = {"compute": {"workers": 1}, "cams": {"splits": ["train"]}}
    return from_mapping(common | {"data": data})


def run_ingest(config: Config, out: Path, **options: str) -> IngestReport:
    return ingest(out, variant=config.variant, data=config.data, compute=config.compute, **options)


@dataclass
class Photos:
    """A folder of photos with a table of tags."""

    root: Path
    out: Path
    settings: dict[str, Any]

    def add(self, name: str, seed: int | None = None, **options: Any) -> Path:
        """Write a good photo."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        array = picture(len(list(self.root.rglob("*"))) if seed is None else seed)
        Image.fromarray(array).save(path, **options)
        return path

    def table(self, text: str, encoding: str = "utf-8") -> None:
        (self.root / "tags.csv").write_bytes(text.encode(encoding))

    def config(self, **data: Any) -> Config:
        settings = self.settings | {"root": str(self.root)} | data
        return make_config(settings)

    def ingest(self, **data: Any) -> IngestReport:
        return run_ingest(self.config(**data), self.out)

    def samples(self) -> dict[str, Sample]:
        return {sample.id: sample for sample in load(self.out)[0]}

    def tags(self, image: str) -> list[str]:
        manifest, classes = load(self.out)
        tags = next(sample.tags for sample in manifest if sample.id == image)
        return [classes.names[index] for index in tags]

    def quarantine(self) -> dict[str, tuple[str, str]]:
        """id → used, reason; the test must not have two rows with the same id."""
        with (self.out / "quarantine.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len({row["id"] for row in rows}) == len(rows)
        return {row["id"]: (row["used"], row["reason"]) for row in rows}


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """An empty folder of photos; half of them may be unusable."""
    root = tmp_path / "photos"
    root.mkdir()
    settings = {"kind": "folder", "classes": ["cat", "dog", "teddy bear"], "quarantine_limit": 0.5}
    return Photos(root, tmp_path / "manifest", settings)


@pytest.fixture
def make_voc(tmp_path: Path) -> Callable[..., Path]:
    """Write VOC's layout from {id: object names or None for no annotation} and lists."""

    def make(objects: dict[str, list[str] | None], **lists: list[str]) -> Path:
        root = tmp_path / "VOC2012"
        for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)
        for seed, (image, names) in enumerate(objects.items()):
            Image.fromarray(picture(seed)).save(root / "JPEGImages" / f"{image}.jpg")
            if names is not None:
                write_xml(root, image, names)
        for name, lines in lists.items():
            text = "".join(f"{line}\n" for line in lines)
            (root / "ImageSets/Segmentation" / f"{name}.txt").write_text(text)
        return root

    return make


def write_xml(root: Path, image: str, names: list[str]) -> None:
    """An annotation; each object has a part, whose name is no tag, and every other is difficult."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{index % 2}</difficult>"
        "<part><name>head</name></part></object>"
        for index, name in enumerate(names)
    )
    text = f"<annotation><filename>{image}.jpg</filename>{objects}</annotation>"
    (root / "Annotations" / f"{image}.xml").write_text(text)
