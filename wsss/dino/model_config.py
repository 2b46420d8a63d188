"""Which DINOv2 a configuration names: a model of timm, or sizes in a JSON file."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from wsss._compat import import_timm
from wsss.config.errors import explain_value
from wsss.config.safe_yaml import read_bytes
from wsss.dino.errors import DinoLoadError
from wsss.errors import raise_unless_about

MODELS = tuple(
    f"vit_{size}_patch14_{registers}dinov2"
    for size in ("small", "base", "large")
    for registers in ("", "reg4_")
)
"""The models of timm that `wsss.dino` knows: S, B and L, without and with registers."""
_MOST_JSON = 2**16


class _Sizes(BaseModel):
    """Keyword arguments of timm's `VisionTransformer`, within what a machine can hold."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    embed_dim: int = Field(gt=0, le=4096)
    depth: int = Field(gt=0, le=128)
    num_heads: int = Field(gt=0, le=256)
    patch_size: int = Field(14, gt=0, le=128)
    img_size: int = Field(518, gt=0, le=4096)
    reg_tokens: int = Field(0, ge=0, le=64)
    mlp_ratio: float = Field(4.0, gt=0, le=16)


def build(model: str) -> nn.Module:
    """timm's `VisionTransformer` with a random start, which is the same every time.

    Args:
        model: of `MODELS`, or the path of a JSON file with keyword arguments of that class
            (``embed_dim``, ``depth``, ``num_heads``, and perhaps ``patch_size``, ``img_size``,
            ``reg_tokens``, ``mlp_ratio``).

    Raises:
        DinoLoadError: there is no such model or file, or no model can be built of it.
    """
    arguments = None
    if model.endswith(".json"):
        arguments = _read(Path(model))
    else:
        check_model(model)
    timm = import_timm()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        if arguments is None:
            built = timm.create_model(model, pretrained=False, num_classes=0)
        else:
            kind = timm.models.vision_transformer.VisionTransformer
            built = kind(**arguments, num_classes=0, init_values=1e-5)
    assert isinstance(built, nn.Module)
    return built


def check_model(model: str) -> None:
    """Check a model's name.

    Raises:
        DinoLoadError: it is not of `MODELS`; the message has the nearest ones.
    """
    if model in MODELS:
        return
    near = difflib.get_close_matches(model, MODELS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise DinoLoadError(
        f"dino.model: there is no DINOv2 {model!r}; {hint}expected {', '.join(MODELS)} or the path "
        "of a .json file"
    )


def _read(file: Path) -> dict[str, Any]:
    """The keyword arguments in a JSON file."""
    try:
        content = json.loads(read_bytes(file, _MOST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise_unless_about(file, error)
        raise DinoLoadError(
            f"{file}: cannot be read as sizes of a DINOv2 ({error}); dino.model must name such a "
            f"file, or one of {', '.join(MODELS)}"
        ) from None
    try:
        sizes = _Sizes.model_validate(content)
    except ValidationError as error:
        lines = (
            f"{'.'.join(map(str, item['loc']))}: {explain_value(item)}" for item in error.errors()
        )
        raise DinoLoadError(
            f"{file}: no DINOv2 can be built of it\n  " + "\n  ".join(lines)
        ) from None
    problems = []
    if sizes.embed_dim % sizes.num_heads:
        problems.append(f"num_heads: {sizes.num_heads} does not divide embed_dim")
    if sizes.img_size % sizes.patch_size:
        problems.append(f"img_size: {sizes.img_size} is no multiple of patch_size")
    if int(sizes.embed_dim * sizes.mlp_ratio) < 1:
        problems.append(f"mlp_ratio: {sizes.mlp_ratio} of embed_dim is nothing")
    if problems:
        raise DinoLoadError(f"{file}: no DINOv2 can be built of it\n  " + "\n  ".join(problems))
    return sizes.model_dump() | {"no_embed_class": sizes.reg_tokens > 0}
