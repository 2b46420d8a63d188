"""Tiny CLIPs with random weights, built by open_clip."""

from typing import Any

import torch

from wsss._compat import import_open_clip

CONFIG: dict[str, Any] = {
    "embed_dim": 24, "quick_gelu": True,
    "vision_cfg": {
        "image_size": 64, "patch_size": 16, "width": 48, "head_width": 16, "layers": 4,
    },
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1,
    },
}  # fmt: skip


def tiny_clip(
    *, patch: int = 16, side: int = 64, layers: int = 4, quick_gelu: bool = True, seed: int = 0
) -> Any:
    """A plain ViT CLIP with weights that give features a large variance."""
    torch.manual_seed(seed)
    vision = CONFIG["vision_cfg"] | {"image_size": side, "patch_size": patch, "layers": layers}
    config = CONFIG | {"vision_cfg": vision, "quick_gelu": quick_gelu}
    model = import_open_clip().model.CLIP(**config)
    with torch.no_grad():
        for name, parameter in model.visual.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25 if "conv1" not in name else 0.05)
        model.logit_scale.fill_(4.6052)
    return model.eval().requires_grad_(False)
