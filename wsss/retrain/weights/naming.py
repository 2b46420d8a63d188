"""Names of backbone weights elsewhere, brought to those of our modules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.artifacts.errors import ArtifactError

Tensors = Mapping[str, Tensor]


def renamed(tensors: Tensors) -> dict[str, Tensor]:
    """Weights under mmsegmentation's names (ResNet38: ours).

    Renamed are MXNet's names of ResNet38, those of MiT by SegFormer's authors, timm's of DeiT and
    ViT, and those of ResNet-101 in deeplab-pytorch; others stay.
    """
    for mark, rename in _NAMINGS.items():
        if any(name.startswith(mark) for name in tensors):
            return rename(tensors)
    return dict(tensors)


def fit_positions(stored: Tensor, grid: tuple[int, int], where: str = "pos_embed") -> Tensor:
    """A positional table [1, 1 + rows x columns, C] for another grid of patches.

    The row of the class token stays. The others, laid out as the square grid of their training, are
    resized bicubically (``align_corners=False``, no antialiasing): mmsegmentation's
    own method, which it also uses on images of other sizes.

    Args:
        stored: the table; its grid is square.
        grid: rows and columns of patches of the result.
        where: named in the error.

    Raises:
        ArtifactError: it is no table of a class token and a square grid.
    """
    side = math.isqrt(max(stored.shape[1] - 1, 0)) if stored.ndim == 3 else 0
    if stored.ndim != 3 or side == 0 or side**2 + 1 != stored.shape[1]:
        raise ArtifactError(
            f"{where} is {tuple(stored.shape)}, expected (1, 1 + side x side, channels): one class "
            "token and a square grid (distilled DeiTs have two tokens); pass weights of plain DeiT"
        )
    if (side, side) == grid:
        return stored
    table = stored[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
    rows = table.flatten(2).transpose(1, 2).to(stored.dtype)
    return torch.cat([stored[:, :1], rows], dim=1)


_MXNET = re.compile(
    r"(?:arg|aux):(res|bn)([2-7])(?:a|b(\d+))?(?:_(branch\w+?))?_([a-z]+(?:_[a-z]+)?)"
)
_MXNET_PARTS = {
    "weight": "weight", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_var": "running_var",
}  # fmt: skip


def _from_mxnet(tensors: Tensors) -> dict[str, Tensor]:
    """``arg:res4b2_branch2a_weight`` is ``b4_2.conv_branch2a.weight``, ``aux:bn7_moving_var`` is
    ``bn7.running_var``; what is no part of the backbone (the classifier) keeps its name.
    """
    ours = {}
    for name, value in tensors.items():
        match = _MXNET.fullmatch(name)
        if name == "arg:conv1a_weight":
            ours["conv1a.weight"] = value
        elif match and match[5] in _MXNET_PARTS:
            kind, stage, block_index, branch, part = match.groups()
            block = f"b{stage}" + (f"_{block_index}" if block_index else "")
            layer = f"{block}.{'conv' if kind == 'res' else 'bn'}_{branch}" if branch else "bn7"
            ours[f"{layer}.{_MXNET_PARTS[part]}"] = value
        else:
            ours[name] = value
    return ours


_TIMM = (
    (r"^blocks\.(\d+)\.norm(\d)\.", r"layers.\1.ln\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.(\w+)", r"layers.\1.attn.attn.in_proj_\2"),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"layers.\1.attn.attn.out_proj."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"layers.\1.ffn.layers.0.0."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"layers.\1.ffn.layers.1."),
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^norm\.(weight|bias)$", r"ln1.\1"),
)


def _from_timm(tensors: Tensors) -> dict[str, Tensor]:
    return {_first(_TIMM, name): value for name, value in tensors.items()}


_MIT = (
    (r"attn\.q\.(\w+)", r"attn.attn.in_proj_\1"),
    (r"attn\.proj\.", "attn.attn.out_proj."),
    (r"mlp\.fc1\.", "ffn.layers.0."),
    (r"mlp\.dwconv\.dwconv\.", "ffn.layers.1."),
    (r"mlp\.fc2\.", "ffn.layers.4."),
    (r"proj\.", "projection."),
)
_MIT_STAGE = re.compile(r"(patch_embed|block|norm)([1-4])\.(.*)")
_MIT_INDEX = {"patch_embed": 0, "block": 1, "norm": 2}


def _from_mit(tensors: Tensors) -> dict[str, Tensor]:
    """Queries are put before keys and values; a linear layer of the MLP is a 1x1 convolution."""
    ours = {}
    for name, value in tensors.items():
        match = _MIT_STAGE.fullmatch(name)
        if not match:
            ours[name] = value
            continue
        part, stage, rest = match.groups()
        if ".attn.kv." in name and name.replace(".kv.", ".q.") in tensors:
            continue
        if ".attn.q." in name and (both := name.replace(".q.", ".kv.")) in tensors:
            value = torch.cat([value, tensors[both]])
        if re.search(r"mlp\.fc\d\.weight$", name):
            value = value[..., None, None] if value.ndim == 2 else value
        ours[f"layers.{int(stage) - 1}.{_MIT_INDEX[part]}.{_first(_MIT, rest)}"] = value
    return ours


_DEEPLAB = re.compile(r"layer([2-5])\.block(\d+)\.(\w+)\.(conv|bn)\.(\w+)")
_DEEPLAB_LAYERS = {"reduce": 1, "conv3x3": 2, "increase": 3}


def _from_deeplab_pytorch(tensors: Tensors) -> dict[str, Tensor]:
    """``layer2.block1.reduce.bn.bias`` is ``layer1.0.bn1.bias``; the stem is its ``layer1``."""
    ours = {}
    for name, value in tensors.items():
        if match := _DEEPLAB.fullmatch(name):
            stage, block, layer, kind, part = match.groups()
            if layer in _DEEPLAB_LAYERS:
                module = f"{kind}{_DEEPLAB_LAYERS[layer]}"
            else:  # shortcut
                module = f"downsample.{('conv', 'bn').index(kind)}"
            ours[f"layer{int(stage) - 1}.{int(block) - 1}.{module}.{part}"] = value
        else:
            ours[re.sub(r"^layer1\.conv1\.(conv|bn)\.", r"\g<1>1.", name)] = value
    return ours


def _first(rules: tuple[tuple[str, str], ...], name: str) -> str:
    """The name after the first rule that is about it."""
    for pattern, replacement in rules:
        changed, count = re.subn(pattern, replacement, name, count=1)
        if count:
            return changed
    return name


_NAMINGS: dict[str, Callable[[Tensors], dict[str, Tensor]]] = {
    "arg:": _from_mxnet,
    "patch_embed1.": _from_mit,
    "blocks.0.": _from_timm,
    "layer1.conv1.": _from_deeplab_pytorch,
}
"""By a beginning of names that no other naming has."""
