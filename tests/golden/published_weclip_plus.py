"""The published WeCLIP+ as a refiner of ours, and its batches."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden.closeness import Arrays
from tests.golden.published_heads import (
    Weights,
    build_decoder,
    build_fusion,
    load_heads,
    our_parameters,
)
from tests.golden.refiners import crop_batch, published_config, refiner_setup
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import TextBank
from wsss.dino.load import configured
from wsss.refine.training.crops import CropBatch
from wsss.refine.weclip_plus.method import WeClipPlus

KINDS: Mapping[str, Mapping[str, Any]] = {
    "voc": {"rfm_blocks": 6, "self_training_start": 18_001},
    "coco": {"rfm_blocks": 8, "self_training_start": 40_001, "cam_block": "last"},
}
BOXES = {"voc": None, "coco": 0.7}
TEXTS = {"voc": "", "coco": "_coco"}


def plus_heads(golden_dir: Path, kind: str) -> Weights:
    """The published weights; COCO has a classifier of its own."""
    heads = load_heads(golden_dir / "weclip_plus_heads.safetensors")
    own = {n: heads.pop(n) for n in list(heads) if n.startswith("coco_decoder.")}
    return heads | ({n.removeprefix("coco_"): t for n, t in own.items()} if kind == "coco" else {})


def build_plus(
    golden_dir: Path,
    arrays: Arrays,
    kind: str,
    folder: Path,
    device: torch.device,
    **sections: Any,
) -> WeClipPlus:
    """The published variant with the published weights."""
    sizes = folder / "dino.json"
    heads = int(arrays["dino_heads"])
    sizes.write_text(json.dumps({"embed_dim": 64, "depth": 3, "num_heads": heads}))
    weights = {"model": str(sizes), "pretrained": str(golden_dir / "dino_tiny.safetensors")}
    config = published_config(
        golden_dir,
        "weclip_plus",
        cams={"affinity": {"box_threshold": BOXES[kind]}},
        crop=arrays["image_uint8"].shape[1],
        sections={"dino": weights, **sections},
        width=arrays["features_clip"].shape[1],
        **KINDS[kind],
    )
    inputs = EncoderInput(config.clip, folder, device=str(device))
    encoders = {"dino": configured(config.dino, device=str(device))}
    labels = arrays[f"{kind}/logits"].shape[1]
    refiner = WeClipPlus(refiner_setup(config, inputs, labels, encoders))
    published = plus_heads(golden_dir, kind)
    refiner.head.clip.load_state_dict(build_fusion(published).state_dict())
    refiner.head.dino.load_state_dict(build_fusion(of_dino(published)).state_dict())
    refiner.head.decoder.load_state_dict(build_decoder(published).state_dict())
    stored = np.load(golden_dir / "weclip.npz")
    texts = (stored[f"{name}{TEXTS[kind]}"] for name in ("fg_text", "bg_text"))
    refiner.bank = TextBank(*map(torch.from_numpy, texts)).to(device)
    refiner.train_mode(False)
    return refiner


def of_dino(heads: Weights) -> Weights:
    """The weights of DINOv2's head under the names that CLIP's has."""
    return {n.removeprefix("dino_"): t for n, t in heads.items() if n.startswith("dino_")}


def plus_batch(refiner: WeClipPlus, arrays: Arrays, kind: str, device: torch.device) -> CropBatch:
    """The two published crops."""
    inputs = refiner.setup.encoder_input
    images = torch.stack([inputs.normalize(image) for image in arrays["image_uint8"]])
    tags = [torch.from_numpy(arrays[f"{kind}/img{n}/class_ids"]) for n in range(len(images))]
    counts = torch.tensor([len(of_image) for of_image in tags])
    image_index = torch.repeat_interleave(torch.arange(len(images)), counts)
    grid = images.shape[-1] // refiner.encoder.patch[0]
    return crop_batch(images, grid, image_index, torch.cat(tags)).to(device)


def gradient(refiner: WeClipPlus, name: str) -> torch.Tensor:
    """Gradient of a parameter by its published name."""
    head = refiner.head
    fusion = head.dino if name.startswith("dino_") else head.clip
    ours, _ = our_parameters(fusion, head.decoder)[name.removeprefix("dino_")]
    module, _, inner = ours.partition(".")
    parameter = {"fusion": fusion, "decoder": head.decoder}[module].get_parameter(inner)
    assert parameter.grad is not None
    if not inner.startswith(("first_", "second_")):
        return parameter.grad
    # A stack of one MLP; its weights are transposed.
    return parameter.grad[0].T if inner.endswith("weight") else parameter.grad[0, 0]
