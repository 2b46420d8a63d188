"""Fusion, learned affinity and decoder against the published WeCLIP, gradients included."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.golden.closeness import FLOAT32, assert_close_rel
from wsss.refine.decoder import TransformerDecoder
from wsss.refine.fusion import FeatureFusion, feature_affinity
from wsss.refine.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window

Arrays = Mapping[str, np.ndarray]
Weights = dict[str, torch.Tensor]

HEADS = 8
_FUSION = "decoder_fts_fuse."
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


@pytest.fixture(scope="module")
def arrays(load_golden: Callable[[str], Arrays]) -> Arrays:
    return load_golden("weclip.npz")


@pytest.fixture(scope="module")
def heads(golden_dir: Path) -> Weights:
    path = golden_dir / "weclip_heads.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden file {path}")
    return {name: value.float() for name, value in load_file(path).items()}


def _fusion(heads: Weights) -> FeatureFusion:
    names = [f"{_FUSION}linears_modulelist.{k}." for k in range(_count(heads))]
    out, width = heads[f"{names[0]}proj.weight"].shape
    fusion = FeatureFusion(len(names), width, out).eval()
    state = {
        "first_weight": torch.stack([heads[f"{n}proj.weight"].T for n in names]),
        "first_bias": torch.stack([heads[f"{n}proj.bias"][None] for n in names]),
        "second_weight": torch.stack([heads[f"{n}proj_2.weight"].T for n in names]),
        "second_bias": torch.stack([heads[f"{n}proj_2.bias"][None] for n in names]),
        "mix.weight": heads[f"{_FUSION}linear_fuse.weight"],
        "mix.bias": heads[f"{_FUSION}linear_fuse.bias"],
    }
    fusion.load_state_dict(state)
    return fusion


def _count(heads: Weights) -> int:
    return len([n for n in heads if re.fullmatch(rf"{_FUSION}linears_modulelist.\d+.proj.bias", n)])


def _decoder(heads: Weights) -> TransformerDecoder:
    state = {}
    for name, value in heads.items():
        if name.startswith(_DECODER):
            state[_decoder_name(name)] = value
    labels, width = state["classify.weight"].shape[:2]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    decoder = TransformerDecoder(labels, width, depth=depth, heads=HEADS).eval()
    decoder.load_state_dict(state)
    return decoder


def _decoder_name(published: str) -> str:
    name = published.removeprefix(_DECODER)
    name = name.replace("transformer.resblocks", "blocks").replace("linear_pred", "classify")
    for theirs, ours in _BLOCK.items():
        name = name.replace(theirs, ours)
    return name


def _features(arrays: Arrays) -> tuple[torch.Tensor, tuple[int, int]]:
    maps = torch.from_numpy(arrays["feature_maps"])  # blocks, B, D, h, w
    return maps.flatten(3).transpose(2, 3), (maps.shape[3], maps.shape[4])


def test_fusion_affinity_and_logits(arrays: Arrays, heads: Weights) -> None:
    with torch.no_grad():
        fused = _fusion(heads)(*_features(arrays))
        assert_close_rel(fused, arrays["fused"], FLOAT32, "fused")
        assert_close_rel(feature_affinity(fused), arrays["affinity"], FLOAT32, "affinity")
        assert_close_rel(_decoder(heads)(fused), arrays["seg_logits"], FLOAT32, "seg_logits")


def test_gradients_of_the_whole_head(arrays: Arrays, heads: Weights) -> None:
    cases = sorted(key.removesuffix("/aff_loss") for key in arrays if key.endswith("/aff_loss"))
    assert cases
    for case in cases:
        fusion, decoder = _fusion(heads), _decoder(heads)
        features, grid = _features(arrays)
        fused = fusion(features, grid)
        labels = torch.from_numpy(arrays[f"{case.rpartition('/')[0]}/label"])
        pairs = affinity_labels(labels, grid, window(grid, int(case.rpartition("/r")[2])))
        loss = balanced_cross_entropy(decoder(fused), labels)
        (loss + 0.1 * affinity_loss(feature_affinity(fused), pairs)).backward()
        for key in [key for key in arrays if key.startswith(f"{case}/grad/")]:
            found = _gradient(fusion, decoder, key.removeprefix(f"{case}/grad/"))
            assert_close_rel(found, arrays[key], FLOAT32, key)
        names = [str(name) for name in arrays[f"{case}/grad_norm_names"]]
        norms = torch.stack([_gradient(fusion, decoder, name).norm() for name in names])
        assert_close_rel(norms, arrays[f"{case}/grad_norms"], FLOAT32, f"{case}/grad_norms")


def _gradient(fusion: FeatureFusion, decoder: TransformerDecoder, name: str) -> torch.Tensor:
    """Gradient of a parameter by its published name."""
    mlp = re.fullmatch(rf"{_FUSION}linears_modulelist\.(\d+)\.(proj|proj_2)\.(weight|bias)", name)
    if mlp is not None:
        which = {"proj": "first", "proj_2": "second"}[mlp[2]]
        stacked = fusion.get_parameter(f"{which}_{mlp[3]}").grad
        assert stacked is not None
        found = stacked[int(mlp[1])]
        return found.T if mlp[3] == "weight" else found[0]
    if name.startswith(_FUSION):
        gradient = fusion.get_parameter(name.removeprefix(_FUSION).replace("linear_fuse", "mix"))
    else:
        gradient = decoder.get_parameter(_decoder_name(name))
    assert gradient.grad is not None
    return gradient.grad
