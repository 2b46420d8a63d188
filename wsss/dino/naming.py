"""Names of DINOv2's tensors: in the release, in Hugging Face's transformers, and in timm."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]

_HF_PARTS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.mask_token": "mask_token",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_HF_PARTS_OF_BLOCK = {
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_HF_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_HF_QUERY = re.compile(r"(encoder\.layer\.\d+\.attention\.attention\.)query\.(weight|bias)")


def in_timm_naming(tensors: Tensors) -> dict[str, Tensor]:
    """A state dict with timm's names, whichever of the three namings it comes in.

    The release adds the class token's row of the positional table to the class token when it runs.
    timm does so beforehand in models with registers.
    """
    names = dict(tensors)
    if "embeddings.cls_token" in names or "dinov2.embeddings.cls_token" in names:
        names = _from_hugging_face({n.removeprefix("dinov2."): t for n, t in names.items()})
    names.pop("mask_token", None)  # of the training alone
    if "register_tokens" in names and {"cls_token", "pos_embed"} <= names.keys():
        names["reg_token"] = names.pop("register_tokens")
        table = names["pos_embed"]
        names["cls_token"] = names["cls_token"] + table[:, :1]
        names["pos_embed"] = table[:, 1:]
    return names


def _from_hugging_face(tensors: Tensors) -> dict[str, Tensor]:
    """The release's names of tensors that transformers named."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if query := _HF_QUERY.fullmatch(name):
            parts = [f"{query[1]}{part}.{query[2]}" for part in ("query", "key", "value")]
            if all(part in tensors for part in parts):
                block = name.split(".")[2]
                packed = torch.cat([tensors[part] for part in parts])
                renamed[f"blocks.{block}.attn.qkv.{query[2]}"] = packed
                continue
        elif ".attention.attention." in name:
            continue  # key and value went with the query
        renamed[_renamed(name)] = tensor
    return renamed


def _renamed(name: str) -> str:
    if match := _HF_BLOCK.fullmatch(name):
        return f"blocks.{match[1]}.{_with_parts(match[2], _HF_PARTS_OF_BLOCK)}"
    return _with_parts(name, _HF_PARTS)


def _with_parts(name: str, parts: Mapping[str, str]) -> str:
    for theirs, ours in parts.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return name
