"""One published training step, from pixels to the loss, against the published WeCLIP."""

import re
from pathlib import Path

import pytest
import torch

from tests.golden.closeness import FLOAT32, HALF, SAME_PIXELS, Arrays, assert_close_rel
from tests.golden.published_heads import build_decoder, build_fusion, load_heads
from tests.golden.refiners import crop_batch, published_config, refiner_setup
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import TextBank
from wsss.config.model import Config
from wsss.refine.blocks.frozen import encode
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip.method import WeClip

GOLDEN = "weclip.npz"
PHASES = {
    "phase1": ({}, 0.4, ""),
    "rfm_voc": ({"rfm_start": 0, "rfm_blocks": 6}, 0.4, ""),
    "rfm_coco": ({"rfm_start": 0, "rfm_blocks": 10}, 0.7, "_coco"),
}


def _config(golden_dir: Path, arrays: Arrays, phase: str) -> Config:
    weclip, box, _ = PHASES[phase]
    cams = {"affinity": {"box_threshold": box}}
    crop, width = arrays["image"].shape[-1], arrays["fused"].shape[1]
    return published_config(golden_dir, "weclip", cams=cams, crop=crop, width=width, **weclip)


def _refiner(
    golden_dir: Path, arrays: Arrays, phase: str, folder: Path, device: torch.device
) -> WeClip:
    config = _config(golden_dir, arrays, phase)
    inputs = EncoderInput(config.clip, folder, device=str(device))
    refiner = WeClip(refiner_setup(config, inputs, labels=arrays["seg_logits"].shape[1]))
    heads = load_heads(golden_dir / "weclip_heads.safetensors")
    refiner.head.fusion.load_state_dict(build_fusion(heads).state_dict())
    refiner.head.decoder.load_state_dict(build_decoder(heads).state_dict())
    texts = (arrays[f"{name}{PHASES[phase][2]}"] for name in ("fg_text", "bg_text"))
    refiner.bank = TextBank(*map(torch.from_numpy, texts)).to(device)
    refiner.train_mode(False)
    return refiner


def _batch(arrays: Arrays, phase: str, device: torch.device) -> CropBatch:
    images = torch.from_numpy(arrays["image"])
    tags = [
        torch.from_numpy(arrays[key])
        for key in sorted(arrays)
        if re.fullmatch(rf"{phase}/img\d+/class_ids", key)
    ]
    counts = torch.tensor([len(labels) for labels in tags])
    image_index = torch.repeat_interleave(torch.arange(len(images)), counts)
    grid = arrays["fused"].shape[-1]
    return crop_batch(images, grid, image_index, torch.cat(tags)).to(device)


@pytest.mark.parametrize("phase", PHASES)
def test_labels_from_pixels(
    golden_dir: Path, arrays: Arrays, phase: str, tmp_path: Path, device: torch.device
) -> None:
    refiner = _refiner(golden_dir, arrays, phase, tmp_path, device)
    batch, rfm = _batch(arrays, phase, device), phase != "phase1"
    features = refiner.encode(batch, rfm=rfm)
    with torch.no_grad():
        _, fused, logits = refiner.head(features.features, features.grid)
    assert_close_rel(fused, arrays["fused"], FLOAT32, "fused")
    assert_close_rel(logits, arrays["seg_logits"], FLOAT32, "seg_logits")
    affinity = refiner.affinity(fused) if rfm else None
    for image, mine in enumerate(refiner.pseudo_labels(batch, features, affinity).cpu().numpy()):
        share = (mine == arrays[f"{phase}/img{image}/label"]).mean()
        assert share >= SAME_PIXELS, f"{phase}/img{image}: {share:.5f} of the pixels agree"


def test_losses_from_pixels(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device
) -> None:
    refiner = _refiner(golden_dir, arrays, "rfm_voc", tmp_path, device)
    losses = refiner.loss(0, _batch(arrays, "rfm_voc", device))
    # A few pixels of the labels may differ (see above), each a 50000th of the sum.
    assert losses["loss"].item() == pytest.approx(float(arrays["loss/r8/total_loss"]), rel=1e-3)
    assert losses["affinity"].item() == pytest.approx(float(arrays["loss/r8/aff_loss"]), rel=1e-3)


def test_attention_of_the_candidates(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device
) -> None:
    refiner = _refiner(golden_dir, arrays, "rfm_voc", tmp_path, device)
    for last_block in (False, True):
        features = encode(
            refiner.encoder,
            torch.from_numpy(arrays["image"]).to(device),
            attention_blocks=6,
            last_block=last_block,
        )
        expected = arrays["attention"][:, -6:, 1:, 1:]
        assert_close_rel(features.attention, expected, FLOAT32, "attention")


def test_released_half_precision_is_close(
    golden_dir: Path, arrays: Arrays, tmp_path: Path, device: torch.device
) -> None:
    """The release runs output projections in float16; ours stay in float32 and close to it."""
    refiner = _refiner(golden_dir, arrays, "rfm_voc", tmp_path, device)
    batch = _batch(arrays, "rfm_voc", device)
    features = refiner.encode(batch, rfm=True)
    with torch.no_grad():
        _, fused, logits = refiner.head(features.features, features.grid)
    affinity = refiner.affinity(fused)
    for name, ours in (("fused", fused), ("seg_logits", logits), ("affinity", affinity)):
        assert_close_rel(ours, arrays[f"half_proj/{name}"], HALF, name)
    labels = refiner.pseudo_labels(batch, features, affinity).cpu().numpy()
    assert (labels == arrays["half_proj/label"]).mean() >= SAME_PIXELS
