"""Every segmenter, and a small one of each kind for what need not be seen at full size."""

import functools
from typing import Any, get_args

import pytest
import torch
from torch import nn

from wsss.config.retrain import RetrainConfig
from wsss.retrain.architecture import ClipTower, build_model, model_config
from wsss.retrain.mm import BatchNorm
from wsss.retrain.segmenter import SegmenterFacts

NAMES: tuple[str, ...] = get_args(RetrainConfig.model_fields["model"].annotation)
KINDS = (
    "segformer-b0", "deeplabv3plus-r50", "deeplabv1-resnet38", "deeplabv2-resnet38",
    "deeplabv2-resnet101", "segmenter-deit-s", "clip-vit",
)  # fmt: skip
CROP = 48


def clip_tower(*, embed_dim: int = 16, **vision: Any) -> ClipTower:
    """The tower of a CLIP, by default one with patches of 8 pixels, 32 channels and 3 blocks."""
    small = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 3}
    architecture = {"embed_dim": embed_dim, "vision_cfg": small | vision, "quick_gelu": True}
    return ClipTower(architecture=architecture, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


VIT_B_16 = clip_tower(
    embed_dim=512, image_size=224, patch_size=16, width=768, head_width=64, layers=12
)


def small_config(name: str, *, crop: int = CROP, labels: int = 4, **rest: Any) -> dict[str, Any]:
    """The model config of a network with an eighth of its channels or fewer, all its layers but
    those of Segmenter and SegFormer, which all are alike.
    """
    rest.setdefault("clip", clip_tower())
    config = model_config(name, labels=labels, crop=crop, **rest)
    backbone, head = config["backbone"], config["decode_head"]
    if name.startswith("segformer"):
        backbone.update(embed_dims=8)
        head.update(in_channels=[8, 16, 40, 64], channels=16)
    elif name.endswith("resnet38"):
        backbone["base_channels"] = 4
        head["in_channels"] = 256
    elif name.startswith("segmenter"):
        backbone.update(embed_dims=24, num_layers=3)
        head.update(in_channels=24, channels=24, embed_dims=24)
    elif name != "clip-vit":
        backbone.update(base_channels=8, stem_channels=8)
        head["in_channels"] = 256
        if name.startswith("deeplabv3plus"):
            head.update(c1_in_channels=32, c1_channels=8, channels=16)
            config["auxiliary_head"].update(in_channels=128, channels=16)
    if name.startswith("deeplabv1"):
        head["channels"] = 16
    return config


def small(name: str, *, seed: int = 0, **rest: Any) -> nn.Module:
    """Such a network, initialised; no residual branch begins at 0, as with weights of a file."""
    torch.manual_seed(seed)
    model = build_model(small_config(name, **rest))
    model.init_weights()
    for module in model.modules():
        if isinstance(module, BatchNorm):
            nn.init.ones_(module.weight)
    return model


def facts(name: str = "segformer-b0", **changes: Any) -> SegmenterFacts:
    """The facts in the checkpoint of such a network."""
    common = {"crop": CROP, "labels": ("background", "cat", "boat", "tree"), "palette": [(0, 0, 0)]}
    inference = {"scales": (1.0,), "average": "probabilities", "window": None, "stride": None}
    return SegmenterFacts.model_validate({"model": name} | common | inference | changes)


def on_meta(name: str, monkeypatch: pytest.MonkeyPatch, *, crop: int = 480) -> nn.Module:
    """The full network for 21 labels without memory for its weights."""
    # mmsegmentation reads the values of a schedule of drop paths
    monkeypatch.setattr(torch, "linspace", functools.partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        return build_model(model_config(name, labels=21, crop=crop, clip=VIT_B_16))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
