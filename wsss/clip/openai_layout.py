"""Read the architecture of a CLIP from the shapes of its weights (OpenAI's names)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wsss.clip.errors import ClipLoadError

_HEAD_WIDTH = 64  # every CLIP of OpenAI has heads of this width, which shapes do not show


def infer_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """An open_clip model config that fits a bare state dict.

    Args:
        weights: OpenAI's names (``visual.conv1.weight``, ``transformer.resblocks.0. …``), which
            open_clip shares for plain ViT models.

    Returns:
        ``embed_dim``, ``quick_gelu`` (True, as OpenAI's models use), ``vision_cfg``, ``text_cfg``.

    Raises:
        ClipLoadError: the names belong to another model (ResNet, custom text tower …), or a width
            is no multiple of 64.
    """
    needed = (
        "visual.conv1.weight",
        "visual.positional_embedding",
        "visual.class_embedding",
        "visual.proj",
        "positional_embedding",
        "token_embedding.weight",
        "text_projection",
    )
    missing = [name for name in needed if name not in weights]
    if missing:
        raise ClipLoadError(
            f"the weights lack {', '.join(missing)}, so they are no plain ViT CLIP in OpenAI's "
            "naming; give the open_clip model name or config instead of 'from-weights'"
        )
    width, _, patch_height, patch_width = weights["visual.conv1.weight"].shape
    patches = weights["visual.positional_embedding"].shape[0] - 1
    side = math.isqrt(patches)
    if patch_height != patch_width or side * side != patches:
        raise ClipLoadError(
            f"patch {patch_height} x {patch_width} and {patches} positions: only square "
            "patches and grids can be read from shapes; give an open_clip model config"
        )
    text_width = weights["token_embedding.weight"].shape[1]
    for name, value in (("visual", width), ("text", text_width)):
        if value % _HEAD_WIDTH:
            raise ClipLoadError(
                f"{name} width {value} is no multiple of {_HEAD_WIDTH}; give an open_clip "
                "model config"
            )
    return {
        "embed_dim": weights["text_projection"].shape[1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": side * patch_height,
            "patch_size": patch_height,
            "width": width,
            "head_width": _HEAD_WIDTH,
            "layers": _depth(weights, "visual.transformer.resblocks."),
            "mlp_ratio": weights["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0] / width,
            "no_ln_pre": "visual.ln_pre.weight" not in weights,
        },
        "text_cfg": {
            "context_length": weights["positional_embedding"].shape[0],
            "vocab_size": weights["token_embedding.weight"].shape[0],
            "width": text_width,
            "heads": text_width // _HEAD_WIDTH,
            "layers": _depth(weights, "transformer.resblocks."),
        },
    }


def _depth(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({n.removeprefix(prefix).split(".")[0] for n in weights if n.startswith(prefix)})
