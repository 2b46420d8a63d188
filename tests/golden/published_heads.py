"""The published decoder heads (``*_heads.safetensors``) as modules of ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wsss.refine.decoder import TransformerDecoder
from wsss.refine.fusion import FeatureFusion

Weights = dict[str, torch.Tensor]

HEADS = 8
FUSION = "decoder_fts_fuse."
_DECODER = "decoder."
_BLOCK = {
    "attn.in_proj_weight": "in_proj.weight",
    "attn.in_proj_bias": "in_proj.bias",
    "attn.out_proj": "out_proj",
    "ln_1": "norm1",
    "ln_2": "norm2",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
}


def load_heads(path: Path) -> Weights:
    """Weights by their published names; skips where there is no such file."""
    if not path.is_file():
        pytest.skip(f"no golden file {path}")
    return {name: value.float() for name, value in load_file(path).items()}


def build_fusion(heads: Weights) -> FeatureFusion:
    names = [f"{FUSION}linears_modulelist.{k}." for k in range(_count(heads))]
    out, width = heads[f"{names[0]}proj.weight"].shape
    fusion = FeatureFusion(len(names), width, out).eval()
    state = {
        "first_weight": torch.stack([heads[f"{n}proj.weight"].T for n in names]),
        "first_bias": torch.stack([heads[f"{n}proj.bias"][None] for n in names]),
        "second_weight": torch.stack([heads[f"{n}proj_2.weight"].T for n in names]),
        "second_bias": torch.stack([heads[f"{n}proj_2.bias"][None] for n in names]),
        "mix.weight": heads[f"{FUSION}linear_fuse.weight"],
        "mix.bias": heads[f"{FUSION}linear_fuse.bias"],
    }
    fusion.load_state_dict(state)
    return fusion


def _count(heads: Weights) -> int:
    return len([n for n in heads if re.fullmatch(rf"{FUSION}linears_modulelist.\d+.proj.bias", n)])


def build_decoder(heads: Weights) -> TransformerDecoder:
    state = {}
    for name, value in heads.items():
        if name.startswith(_DECODER):
            state[decoder_name(name)] = value
    labels, width = state["classify.weight"].shape[:2]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    decoder = TransformerDecoder(labels, width, depth=depth, heads=HEADS).eval()
    decoder.load_state_dict(state)
    return decoder


def decoder_name(published: str) -> str:
    name = published.removeprefix(_DECODER)
    name = name.replace("transformer.resblocks", "blocks").replace("linear_pred", "classify")
    for theirs, ours in _BLOCK.items():
        name = name.replace(theirs, ours)
    return name
