"""The shipped CLIP: small, loadable by open_clip alone, and able to recognise tags."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from tools.demo_clip.evaluate import zero_shot_map
from tools.demo_clip.model import CONFIG, WEIGHTS, encode_image, encode_text, tokenize
from wsss._compat import import_open_clip
from wsss.demo.dataset import generate

PROVENANCE = WEIGHTS.parent / "PROVENANCE.json"


def test_weights_are_small_and_those_recorded() -> None:
    recorded = json.loads(PROVENANCE.read_text())
    assert WEIGHTS.stat().st_size <= 8_000_000
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == recorded["weights_sha256"]


def test_open_clip_loads_them_unaided() -> None:
    open_clip = import_open_clip()
    open_clip.add_model_config(CONFIG)
    model = open_clip.create_model("demo-vit-p8", pretrained=str(WEIGHTS)).eval()
    assert model.logit_scale.item() == pytest.approx(math.log(100), abs=1e-6)
    assert len(model.visual.transformer.resblocks) == 12
    images, texts = torch.rand(2, 3, 96, 96), tokenize(["a cat", "a boat on water."])
    ours, _ = encode_image(model, images)
    torch.testing.assert_close(ours, model.encode_image(images, normalize=True))
    torch.testing.assert_close(encode_text(model, texts), model.encode_text(texts, normalize=True))


@pytest.mark.slow
def test_tag_precision_on_held_out_scenes_is_as_recorded(tmp_path: Path) -> None:
    generate(tmp_path / "data", train=1, val=80)
    measures = zero_shot_map(WEIGHTS, tmp_path / "data")
    recorded = json.loads(PROVENANCE.read_text())["measured"]
    assert measures["images"] == 80
    assert measures["map"] == pytest.approx(recorded["held_out_tag_map"], abs=0.005)
    assert measures["patch_map"] == pytest.approx(recorded["held_out_patch_tag_map"], abs=0.005)
    assert float(measures["map"]) >= 0.9
