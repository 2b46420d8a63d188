"""Label maps of COCO that others made: where they are looked for, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from wsss.config.data import DataConfig
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.data.manifest import Manifest, Sample
from wsss.score.truth.errors import TruthError
from wsss.score.truth.find import find_truth, read_truth, truth_state

from ..conftest import save_mask

WIDTH, HEIGHT = 6, 4
NAMES = ("COCO_train2014_000000000009", "COCO_val2014_000000000042", "COCO_val2014_000000000073")


def samples(*names: str) -> Manifest:
    paths = (Path("coco") / name.split("_")[1] / f"{name}.jpg" for name in names)
    return Manifest(tuple(Sample(p.stem, "val", p, WIDTH, HEIGHT, "", ()) for p in paths))


def data(masks: Path) -> DataConfig:
    given = {"kind": "coco", "root": "no such folder", "coco_truth": "png", "masks": str(masks)}
    return from_mapping({"data": given}).data


def label_map(value: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), value, np.uint8)


@pytest.mark.parametrize(
    "layout", ["{part}2014/{name}", "{part}2014/{digits}", "{part}/{digits}", "{name}", "{digits}"]
)
def test_the_usual_places_and_names(tmp_path: Path, layout: str) -> None:
    masks = tmp_path / "SegmentationClass"
    for value, name in zip((80, 1, 255), NAMES, strict=True):
        _, part, digits = name.split("_")
        places = {"part": part.removesuffix("2014"), "name": name, "digits": digits}
        save_mask(masks / f"{layout.format(**places)}.png", label_map(value))
    truth = find_truth(data(masks), samples(*NAMES), "val")
    assert truth.rule == "png"
    assert truth.description == f"3 PNGs in {masks} (png: PNGs that were made elsewhere)"
    values = [int(read_truth(truth.sources[n], n, HEIGHT, WIDTH)[0, 0]) for n in NAMES]
    assert values == [80, 1, 255]
    assert truth_state(data(masks), "val")
    digest = truth.digest()
    save_mask(next(masks.rglob("*42.png")), label_map(2))
    assert find_truth(data(masks), samples(*NAMES), "val").digest() != digest


def test_missing_files_are_listed_together(tmp_path: Path) -> None:
    save_mask(tmp_path / "val2014" / f"{NAMES[1]}.png", label_map(1))
    with pytest.raises(TruthError, match=r"2 of 3 images have no ground truth: .*0009.*0073"):
        find_truth(data(tmp_path), samples(*NAMES), "val")
    with pytest.raises(TruthError, match="1 of 1 images have no ground truth"):
        find_truth(data(tmp_path / "none"), samples(NAMES[1]), "val")


def test_category_ids_and_other_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{NAMES[1]}.png"
    labels = label_map(0)
    labels[0, :3] = 90, 84, 255  # COCO's ids of toothbrush and book
    save_mask(path, labels)
    source = find_truth(data(tmp_path), samples(NAMES[1]), "val").sources[NAMES[1]]
    with pytest.raises(TruthError) as caught:
        read_truth(source, NAMES[1], HEIGHT, WIDTH)
    assert f"{path}: holds labels 84, 90, expected 0 for background, 1 … 80" in str(caught.value)
    assert "write each as its place among the 80" in str(caught.value)
    save_mask(path, label_map(3)[:, :5])
    with pytest.raises(TruthError, match="is 5 x 4 pixels, its image is 6 x 4"):
        read_truth(source, NAMES[1], HEIGHT, WIDTH)


def test_the_folder_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"coco_truth is png, so data\.masks must name"):
        from_mapping({"data": {"kind": "coco", "coco_truth": "png"}})
