"""PNGs of the masks stage, read back by other readers and as other software reads them."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from tests.masks.mask_run import make_run
from wsss.artifacts.shard import Shard
from wsss.data.images.label_png import voc_palette


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """The folder of `train` PNGs and their expected labels: 0 … 12 and 255."""
    run = make_run(tmp_path_factory.mktemp("run"))
    shard, png = run.make(run.write_scores(), min_confidence=0.9)
    with Shard(shard) as opened:
        expected = {item.id: item.arrays["train"] for item in opened}
    present = set(np.unique(np.concatenate([array.ravel() for array in expected.values()])))
    assert {0, 12, 255} <= present
    return png / "train", expected


def test_pillow_reads_indices(product: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, expected = product
    for image, labels in expected.items():
        with Image.open(folder / f"{image}.png") as opened:
            assert opened.mode == "P"
            np.testing.assert_array_equal(np.array(opened), labels)
            # The trap: L is luminance. Those who convert see other numbers, also for label 0 … 20.
            if labels.any():
                assert (np.array(opened.convert("L")) != labels).any()


def test_colours_are_the_palette_of_voc(product: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, expected = product
    palette = np.array(voc_palette(), np.uint8)
    for image, labels in expected.items():
        with Image.open(folder / f"{image}.png") as opened:
            np.testing.assert_array_equal(np.array(opened.convert("RGB")), palette[labels])
        buffer = np.fromfile(folder / f"{image}.png", np.uint8)
        colours = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(colours[:, :, ::-1], palette[labels])


def test_mmcv_reads_indices(product: tuple[Path, dict[str, np.ndarray]]) -> None:
    """As mmsegmentation loads annotations: the bytes, unchanged, through Pillow."""
    folder, expected = product
    for image, labels in expected.items():
        content = (folder / f"{image}.png").read_bytes()
        read = mmcv.imfrombytes(content, flag="unchanged", backend="pillow")
        np.testing.assert_array_equal(read.squeeze(), labels)


def test_rewriting_with_pillow_preserves_indices(
    product: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folder, expected = product
    for image, labels in expected.items():
        with Image.open(folder / f"{image}.png") as opened:
            opened.save(tmp_path / "copy.png", optimize=True)
        with Image.open(tmp_path / "copy.png") as copy:
            np.testing.assert_array_equal(np.array(copy), labels)
