"""Memory for attention: the estimate is what a network holds, and too large photos are refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.retrain.conftest import Data
from tests.retrain.small_networks import facts, small
from wsss.artifacts.checkpoint import save_checkpoint
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.stage import STAGES
from wsss.config.model import Config
from wsss.data.manifest import Sample
from wsss.photos.predict import predict_photos
from wsss.retrain.predict import run
from wsss.retrain.segmenter import Segmenter

CPU = torch.device("cpu")


class _Softmax(TorchDispatchMode):
    """Bytes of the largest softmax over keys; that over labels is none of the last dimension."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "softmax" in str(func) and args[1] == -1:
            sizes = [t.nbytes for t in tree_leaves(result) if isinstance(t, Tensor)]
            self.largest = max(self.largest, *sizes)
        return result


@pytest.mark.parametrize("name", ["segformer-b0", "segmenter-deit-s"])
@pytest.mark.parametrize("window", [None, 96])
def test_the_estimate_is_what_the_network_holds(name: str, window: int | None) -> None:
    net = Segmenter(small(name), facts(name, scales=(1.0, 1.25), window=window), CPU)
    photo = np.zeros((1, 150, 200, 3), np.uint8)
    with _Softmax() as mode:
        net.probabilities(photo)
    # Scores and softmax; the photo and its mirror image enter together. The decoder of Segmenter
    # attends to one more token for each label.
    assert 2 * mode.largest == pytest.approx(
        net.attention_bytes(150, 200), rel=0.2 if window else 0.05
    )


def test_the_attention_of_a_clip_is_that_of_all_its_tokens() -> None:
    net = Segmenter(small("clip-vit"), facts("clip-vit"), CPU)
    assert net.attention_bytes(80, 120) == 4 * 4 * 2 * (1 + 10 * 15) ** 2
    convolutions = Segmenter(small("deeplabv2-resnet101"), facts("deeplabv2-resnet101"), CPU)
    assert convolutions.attention_bytes(8000, 8000) == 0


def _checkpoint(path: Path, **changes: Any) -> Path:
    provenance = Provenance(stage="retrain", config={}, seed=0, code="", packages={})
    weights = small("segformer-b0").state_dict()
    save_checkpoint(path, weights, provenance, facts(**changes).model_dump())
    return path


@pytest.mark.usefixtures("small_networks")
def test_a_large_photo_is_refused_before_the_work_starts(
    data: Data, configure: Callable[..., Config], tmp_path: Path
) -> None:
    data.add("small", "large", 40, 40)
    _black(data, "huge", width=6000, height=5000)
    data.save()
    checkpoint, out = _checkpoint(tmp_path / "segmenter.safetensors"), tmp_path / "p.h5"

    def predict(**changes: Any) -> None:
        config = configure(predict={"scales": [1.0]} | changes)
        values = STAGES["predict"].select(config) | {"compute": config.compute}
        run(data.manifest_dir, "large", (1, 1), checkpoint, out, **values)

    message = (
        r"1 of 2 photos are too large .* 'huge' of 6000 x 5000 pixels needs about (\d+) GiB, at "
        r"most 16 GiB .* predict\.window, e\.g\. to 48, and predict\.stride, e\.g\. to 32"
    )
    with pytest.raises(ValueError, match=message) as error:
        predict()
    asked = re.search(message, str(error.value))
    assert asked is not None
    # 1 head, all patches of 4 pixels with those of 32; scores and softmax, twice, float32
    assert int(asked[1]) == round(16 * (1250 * 1500) * (156 * 187) / 2**30)
    assert not out.exists()


@pytest.mark.usefixtures("small_networks")
def test_wsss_predict_names_its_own_option(data: Data, tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path / "segmenter.safetensors")
    sample = _black(data, "huge", width=3000, height=2500)
    out = tmp_path / "out"
    with pytest.raises(
        ValueError, match=r"'huge' of 3000 x 2500 .* lower --long-side, e\.g\. to 10"
    ):
        predict_photos(sample.path, checkpoint, out, long_side=3000, device="cpu")
    assert not out.exists()
    predict_photos(sample.path, checkpoint, out, long_side=64, device="cpu")
    assert Image.open(next(out.rglob("masks/*.png"))).size == (3000, 2500)


def _black(data: Data, image: str, *, width: int, height: int) -> Sample:
    """A photo that nothing reads but its header."""
    path = data.root / f"{image}.png"
    Image.new("RGB", (width, height)).save(path)
    sample = Sample(image, "large", path, width, height, "0" * 64, (0,))
    data.samples.append(sample)
    return sample
