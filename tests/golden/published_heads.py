"""The published decoder heads (``*_heads.safetensors``) as modules of ours."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from wsss.refine.blocks.decoder import TransformerDecoder
from wsss.refine.blocks.fusion import FeatureFusion
from wsss.refine.excel.released import parts
from wsss.refine.released.matching import assemble

Weights = dict[str, torch.Tensor]

HEADS = 8
FUSION = "decoder_fts_fuse."
_FUSION, _DECODER = "fusion.", "decoder."


def load_heads(path: Path) -> Weights:
    """Weights by their published names; skips if the file is missing."""
    if not path.is_file():
        pytest.skip(f"no golden file {path}")
    return {name: value.float() for name, value in load_file(path).items()}


def build_fusion(heads: Weights) -> FeatureFusion:
    mix = heads[f"{FUSION}linear_fuse.weight"]
    width = heads[f"{FUSION}linears_modulelist.0.proj.weight"].shape[1]
    fusion = FeatureFusion(mix.shape[1] // mix.shape[0], width, mix.shape[0]).eval()
    _fill(fusion, _FUSION, heads)
    return fusion


def build_decoder(heads: Weights) -> TransformerDecoder:
    labels, width = heads[f"{_DECODER}linear_pred.weight"].shape[:2]
    depth = len([name for name in heads if name.endswith("attn.in_proj_bias")])
    decoder = TransformerDecoder(labels, width, depth=depth, heads=HEADS).eval()
    _fill(decoder, _DECODER, heads)
    return decoder


def _fill(module: nn.Module, prefix: str, heads: Weights) -> None:
    assembled, _ = assemble(heads, parts({prefix + k: v for k, v in module.state_dict().items()}))
    assert not assembled.problems
    module.load_state_dict({k.removeprefix(prefix): v for k, v in assembled.tensors.items()})


def our_parameters(fusion: nn.Module, decoder: nn.Module) -> Mapping[str, tuple[str, int | None]]:
    """Our name of each published parameter, and its block if we stack several."""
    state = {_FUSION + k: v for k, v in fusion.state_dict().items()}
    state |= {_DECODER + k: v for k, v in decoder.state_dict().items()}
    by_name: dict[str, tuple[str, int | None]] = {}
    for ours, part in parts(state).items():
        for block, theirs in enumerate(part.sources):
            by_name[theirs] = (ours, block if len(part.sources) > 1 else None)
    return by_name
