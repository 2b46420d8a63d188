"""The results of a run with photos and masks of every kind that a format may stumble over."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.builders import provenance, write_manifest_folder, write_shard
from wsss.artifacts.digest import digest_file
from wsss.artifacts.shard import Item
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample
from wsss.export.run import Form, export
from wsss.export.source import open_run
from wsss.export.task import ExportTask

NAMES = ("cat", "sailing boat", "tree & bush")
CLASSES = ClassList("folder", NAMES, NAMES, ("sky",))


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    """A label map with smooth outlines, parts, holes, single pixels and the image's edge."""
    noise = np.random.default_rng(seed).standard_normal((len(NAMES) + 1, height, width))
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 5) for plane in noise])
    labels = smooth.argmax(axis=0).astype(np.uint8)
    labels[5:20, 8:30] = 1
    labels[9:14, 12:18] = 0  # a hole
    labels[11, 15] = 2  # and a pixel in it
    return labels


@dataclass
class Results:
    """A run on disk."""

    folder: Path
    labels: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """By split and id."""
    train: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def export(self, form: Form, out: Path, **options: object) -> str:
        product = options.pop("product", "label")
        task = ExportTask(open_run(self.folder, product), **options)  # type: ignore[arg-type]
        return str(export(form, task, out))


def make_results(root: Path) -> Results:
    """Seven training and two held-out photos."""
    results, samples = Results(root / "results/tiny"), []
    images = {
        "a": "train", "sub folder/bild ü": "train", "turned": "train", "empty": "train",
        "full": "train", "dots.in.name": "train", "v1": "val", "v 2": "val",
        "images/under": "train",
    }  # fmt: skip
    for index, (image, split) in enumerate(images.items()):
        height, width = (64, 90) if index % 2 else (83, 61)
        labels = blobs(index, height, width)
        if image == "empty":
            labels[:] = 0
        if image == "full":
            labels[:] = 3
        train = labels.copy()
        train[-9:, 4:40] = 255
        path = root / "photos" / f"{image}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = np.stack([labels * 60, 255 - labels * 50, labels * 20], axis=2)
        exif = Image.Exif()
        if image == "turned":
            exif[274] = 6
            stored = np.rot90(stored)  # turned back by the reader
        Image.fromarray(stored).save(path, exif=exif, quality=95)
        tags = tuple(label - 1 for label in np.unique(labels).tolist() if label)
        digest = digest_file(path)
        samples.append(Sample(image, split, path, width, height, digest, tags))
        results.labels[split, image], results.train[split, image] = labels, train
    write_manifest_folder(results.folder / "manifest", CLASSES, samples)
    for split, parts in {"train": 2, "val": 1}.items():
        members = [sample for sample in samples if sample.split == split]
        for part in range(parts):
            items = [
                Item(
                    s.id,
                    {"label": results.labels[split, s.id], "train": results.train[split, s.id]},
                    {"size": [s.height, s.width], "classes": list(s.tags)},
                )
                for s in members[part::parts]
            ]
            path = results.folder / f"masks/{split}/{part + 1}-of-{parts}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_shard(path, "masks", items, provenance("masks"))
    return results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return make_results(tmp_path_factory.mktemp("export"))
