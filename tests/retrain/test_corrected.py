"""A training on pseudo masks of which some were corrected: what it reads, and what it is called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import provenance, write_shard
from tests.retrain.trainings import run
from wsss.artifacts.checkpoint_header import checkpoint_provenance
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.config.errors import ConfigError
from wsss.config.model import Config
from wsss.retrain.dataset import PseudoMaskDataset
from wsss.retrain.predict import run as predict

pytestmark = pytest.mark.usefixtures("small_networks")


@pytest.fixture
def corrected(data: Any, tmp_path: Path) -> Path:
    """Masks of two images: the pseudo mask, one label up."""
    images = [s.id for s in data.samples if s.split == "train"][1:3]
    items = [Item(i, {"train": (data.truth[i] + 1) % 4}, {}) for i in images]
    origin = provenance("corrected_masks", config={"retrain.corrected": "hand"})
    return write_shard(tmp_path / "train.h5", "corrected_masks", items, origin)


def test_corrected_masks_stand_in_for_pseudo_masks(data: Any, corrected: Path) -> None:
    dataset = PseudoMaskDataset(
        manifest_dir=str(data.manifest_dir), masks=list(map(str, data.masks())),
        corrected=str(corrected), seed=0, max_pixels=10**7, pipeline=[],
        metainfo={"classes": ("background", "cat", "boat", "tree")},
    )  # fmt: skip
    changed = []
    for index in range(len(dataset)):
        image = dataset.get_data_info(index)["id"]
        mask = dataset.prepare_data(index)["gt_seg_map"]
        if np.array_equal(mask, (data.truth[image] + 1) % 4):
            changed.append(image)
        else:
            np.testing.assert_array_equal(mask, data.truth[image])
    assert changed == [s.id for s in data.samples if s.split == "train"][1:3]


@pytest.mark.slow
def test_the_training_is_labelled_and_counted_and_never_weak(
    data: Any, configure: Callable[..., Config], corrected: Path, tmp_path: Path
) -> None:
    weak = configure(iterations=2)
    mixed = configure(iterations=2, corrected="hand")
    for config, shard in ((weak, corrected), (mixed, None)):
        with pytest.raises(ConfigError, match=r"where retrain\.corrected names"):
            run(data, config, tmp_path, corrected=shard)
    first = run(data, mixed, tmp_path / "mixed", corrected=corrected)
    assert first != run(data, weak, tmp_path / "weak")
    taught = checkpoint_provenance(tmp_path / "mixed/segmenter.safetensors")
    assert taught.supervision == "mixed"
    assert taught.learned == {"pseudo masks": 4, "corrected masks": 2}
    assert taught.config["retrain"]["corrected"] == "hand"
    assert checkpoint_provenance(tmp_path / "weak/segmenter.safetensors").learned == {}

    def segment(config: Config, checkpoint: str) -> Any:
        arguments = STAGES["predict"].arguments(config)
        out, path = tmp_path / "p.h5", tmp_path / checkpoint / "segmenter.safetensors"
        predict(data.manifest_dir, "val", (1, 1), path, out, **arguments)
        return out

    with pytest.raises(ArtifactError, match=r"retrain\.corrected, mixed .* is weakly"):
        segment(weak, "mixed")
    upper = weak.model_copy(update={"supervision": "masks"})
    with pytest.raises(ArtifactError, match=r"with retrain\.corrected, .* is fully supervised"):
        segment(upper, "mixed")
