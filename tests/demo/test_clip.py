"""The shipped CLIP: small, loadable by open_clip alone, and it knows what is in the scenes."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from wsss._compat import import_open_clip
from wsss.demo.evaluate import average_precision, zero_shot_map
from wsss.demo.model import CONFIG, WEIGHTS, build, encode_image, encode_text, tokenize

PROVENANCE = WEIGHTS.parent / "PROVENANCE.json"


def test_weights_are_small_and_those_recorded() -> None:
    recorded = json.loads(PROVENANCE.read_text())
    assert WEIGHTS.stat().st_size <= 8_000_000
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == recorded["weights_sha256"]


def test_open_clip_loads_them_by_itself() -> None:
    open_clip = import_open_clip()
    open_clip.add_model_config(CONFIG)
    model = open_clip.create_model("demo-vit-p8", pretrained=str(WEIGHTS)).eval()
    assert model.logit_scale.item() == pytest.approx(math.log(100), abs=1e-6)
    assert len(model.visual.transformer.resblocks) == 12
    images, texts = torch.rand(2, 3, 96, 96), tokenize(["a cat", "a boat on water."])
    ours, _ = encode_image(model, images)
    torch.testing.assert_close(ours, model.encode_image(images, normalize=True))
    torch.testing.assert_close(encode_text(model, texts), model.encode_text(texts, normalize=True))


def test_other_grids_than_the_square_one() -> None:
    whole, patches = encode_image(build(), torch.rand(1, 3, 96, 144))
    assert whole.shape == patches.shape == (1, 64)


def test_finds_the_tags_of_held_out_scenes_as_recorded(demo_root: Path) -> None:
    found = zero_shot_map(WEIGHTS, demo_root)
    recorded = json.loads(PROVENANCE.read_text())["measured"]
    assert found["images"] == 80
    assert found["map"] == pytest.approx(recorded["held_out_tag_map"], abs=0.005)
    assert found["patch_map"] == pytest.approx(recorded["held_out_patch_tag_map"], abs=0.005)


def test_reaches_the_goal(demo_root: Path) -> None:
    assert float(zero_shot_map(WEIGHTS, demo_root)["map"]) >= 0.9  # type: ignore[arg-type]


def test_missing_weights_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="wsss demo pretrain"):
        build(tmp_path / "none.safetensors")


def test_average_precision() -> None:
    truth = np.array([True, False, True, False])
    assert average_precision(np.array([4.0, 3, 2, 1]), truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([4.0, 1, 3, 2]), truth) == pytest.approx(1)
    assert math.isnan(average_precision(np.ones(2), np.zeros(2, dtype=bool)))
