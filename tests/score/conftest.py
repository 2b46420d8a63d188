"""A tiny run: a manifest, ground truth in PNGs, and shards of every product."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import clip_es_config, provenance, write_manifest_folder, write_shard
from wsss.artifacts.digest import digest_file
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample
from wsss.score.product import ProductName
from wsss.score.record import Record
from wsss.score.settings import Settings
from wsss.score.stage import run as score

CLASSES = ClassList("tiny", ("cat", "boat", "tree"), ("cat", "boat", "tree"), ("sky",))
PROVENANCE = provenance(weights={"clip": "abc"})


@dataclass
class Run:
    """A tiny run on disk."""

    folder: Path
    config: Config
    samples: list[Sample]
    truth: dict[str, np.ndarray]
    photos: dict[str, np.ndarray]
    cams: dict[str, np.ndarray] = field(default_factory=dict)
    classes: ClassList = CLASSES

    @property
    def manifest_dir(self) -> Path:
        return self.folder / "manifest"

    def score(
        self,
        product: ProductName,
        shards: Sequence[Path],
        out: Path,
        *,
        split: str = "train",
        config: Config | None = None,
    ) -> list[Record]:
        """Score a product with what its stage reads of the configuration."""
        given = self.config if config is None else config
        values = STAGES[f"score_{product}"].select(given)
        settings = Settings(**values)
        return score(
            product, self.manifest_dir, split, shards, out, settings, workers=given.compute.workers
        )

    def write(self, name: str, kind: str, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
        """Write a shard of named arrays by image."""
        path = self.folder / f"{name}.h5"
        tags = {sample.id: list(sample.tags) for sample in self.samples}
        items = (
            Item(image, dict(named), {"classes": tags.get(image, [0])})
            for image, named in arrays.items()
        )
        return write_shard(path, kind, items, PROVENANCE)

    def cam_shards(self) -> list[Path]:
        """The CAMs in two shards; `cam_affinity` is another map than `cam`."""
        parts = [self.samples[0::2], self.samples[1::2]]
        return [
            self.write(
                f"cams-{index}",
                "cams",
                {
                    s.id: {"cam": self.cams[s.id], "cam_affinity": self.cams[s.id] ** 2}
                    for s in part
                },
            )
            for index, part in enumerate(parts)
        ]


def save_mask(path: Path, labels: np.ndarray) -> None:
    """Write an index PNG with a palette, independently of the package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    image.save(path)


def build_run(folder: Path, count: int = 6, **sections: Mapping[str, object]) -> Run:
    """A run of ``count`` images in a folder, with random blocks as truth and noisy CAMs."""
    rng = np.random.default_rng(5)
    root = folder / "data"
    samples, truths, photos, cams = [], {}, {}, {}
    for index in range(count):
        image = f"sub folder/bild ü {index}" if index == 0 else f"image{index}"
        height, width = (24, 32) if index % 2 else (33, 20)
        tags = tuple(sorted(rng.permutation(3)[: 1 + index % 3].tolist()))
        tags = () if index == count - 1 else tags
        truth = np.zeros((height, width), np.uint8)
        grid = np.zeros((len(tags), 5, 4), np.float32)
        for row, tag in enumerate(tags):
            top, left = rng.integers(0, 12, 2)
            truth[top : top + 10, left : left + 8] = tag + 1
            grid[row] = rng.random((5, 4)) * 0.5
            grid[row, top * 5 // height :, left * 4 // width :][:2, :2] += 0.5
        truth[:, -1] = 255
        photo = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        path = root / "JPEGImages" / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path)
        save_mask(root / "SegmentationClass" / f"{image}.png", truth)
        samples.append(Sample(image, "train", path, width, height, digest_file(path), tags))
        truths[image], photos[image], cams[image] = truth, photo, grid.astype(np.float16)
    write_manifest_folder(folder / "manifest", CLASSES, samples)
    config = clip_es_config({"data": {"root": str(root)}, "compute": {"workers": 1}, **sections})
    return Run(folder, config, samples, truths, photos, cams)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """`build_run` in the folder of the test."""
    return partial(build_run, tmp_path)


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Run:
    """Six images with truth and CAMs."""
    return make_run()
