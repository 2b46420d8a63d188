"""Pixel labels as training masks: what they hold where the truth is incomplete or wrong; reuse."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.config.load import from_mapping
from wsss.labels.ignore import IGNORED
from wsss.score.truth.errors import TruthError
from wsss.score.truth.training_masks import run as write_truth

from ..conftest import Run, save_mask


def export(run: Run, out: Path, part: tuple[int, int] = (1, 1), **data: Any) -> Path:
    root = run.config.data.root
    config = from_mapping({"supervision": "masks", "data": {"root": root} | data})
    write_truth(run.manifest_dir, part, out, **STAGES["truth_masks"].arguments(config))
    return out


def test_parts_hold_the_truth_and_edited_masks_alone_are_read_again(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shards = [export(run, tmp_path / f"truth/{n}-of-2.h5", (n, 2)) for n in (1, 2)]
    arrays = {}
    for path in shards:
        with Shard(path, kind="truth_masks") as shard:
            arrays |= {item.id: item.arrays["train"] for item in shard}
    assert arrays.keys() == run.truth.keys()
    for image, labels in run.truth.items():
        np.testing.assert_array_equal(arrays[image], labels)
    caplog.clear()
    image = run.samples[1].id
    changed = np.where(run.truth[image] == 0, 1, run.truth[image]).astype(np.uint8)
    save_mask(Path(run.config.data.root) / "SegmentationClass" / f"{image}.png", changed)
    export(run, tmp_path / "truth/1-of-1.h5")
    assert f"{len(arrays)} images: {len(arrays) - 1} reused, 1 computed" in caplog.text


def test_a_label_that_is_no_class_is_refused(run: Run, tmp_path: Path) -> None:
    image = run.samples[2].id
    mask = run.truth[image].copy()
    mask[0, 0] = 4  # three classes
    save_mask(Path(run.config.data.root) / "SegmentationClass" / f"{image}.png", mask)
    with pytest.raises(TruthError, match=rf"{image!r} has label 4, but the class list ends at 3"):
        export(run, tmp_path / "truth.h5")


def test_a_photo_without_a_mask_teaches_nothing(
    make_run: Callable[..., Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    masks = Path(run.config.data.root) / "SegmentationClass"
    image = run.samples[3].id
    (masks / f"{image}.png").unlink()
    out = export(run, tmp_path / "truth.h5", kind="folder", masks=str(masks))
    with Shard(out) as shard:
        assert (shard.read(image).arrays["train"] == IGNORED).all()
        assert (shard.read(run.samples[2].id).arrays["train"] != IGNORED).any()
    assert image in caplog.text
