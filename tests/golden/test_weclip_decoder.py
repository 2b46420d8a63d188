"""Fusion, learned affinity and decoder against the published WeCLIP, gradients included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.closeness import FLOAT32, assert_close_rel
from tests.golden.published_heads import (
    Weights,
    build_decoder,
    build_fusion,
    load_heads,
    our_parameters,
)
from wsss.refine.blocks.decoder import TransformerDecoder
from wsss.refine.blocks.fusion import FeatureFusion, feature_affinity
from wsss.refine.blocks.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window

Arrays = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def arrays(load_golden: Callable[[str], Arrays]) -> Arrays:
    return load_golden("weclip.npz")


@pytest.fixture(scope="module")
def heads(golden_dir: Path) -> Weights:
    return load_heads(golden_dir / "weclip_heads.safetensors")


def _features(arrays: Arrays) -> tuple[torch.Tensor, tuple[int, int]]:
    maps = torch.from_numpy(arrays["feature_maps"])  # blocks, B, D, h, w
    return maps.flatten(3).transpose(2, 3), (maps.shape[3], maps.shape[4])


def test_fusion_affinity_and_logits(arrays: Arrays, heads: Weights) -> None:
    with torch.no_grad():
        fused = build_fusion(heads)(*_features(arrays))
        assert_close_rel(fused, arrays["fused"], FLOAT32, "fused")
        assert_close_rel(feature_affinity(fused), arrays["affinity"], FLOAT32, "affinity")
        assert_close_rel(build_decoder(heads)(fused), arrays["seg_logits"], FLOAT32, "seg_logits")


def test_gradients_of_the_whole_head(arrays: Arrays, heads: Weights) -> None:
    cases = sorted(key.removesuffix("/aff_loss") for key in arrays if key.endswith("/aff_loss"))
    assert cases
    for case in cases:
        fusion, decoder = build_fusion(heads), build_decoder(heads)
        features, grid = _features(arrays)
        fused = fusion(features, grid)
        labels = torch.from_numpy(arrays[f"{case.rpartition('/')[0]}/label"])
        pairs = affinity_labels(labels, grid, window(grid, int(case.rpartition("/r")[2])))
        loss = balanced_cross_entropy(decoder(fused), labels)
        (loss + 0.1 * affinity_loss(feature_affinity(fused), pairs)).backward()
        for key in [key for key in arrays if key.startswith(f"{case}/grad/")]:
            gradient = _gradient(fusion, decoder, key.removeprefix(f"{case}/grad/"))
            assert_close_rel(gradient, arrays[key], FLOAT32, key)
        names = [str(name) for name in arrays[f"{case}/grad_norm_names"]]
        norms = torch.stack([_gradient(fusion, decoder, name).norm() for name in names])
        assert_close_rel(norms, arrays[f"{case}/grad_norms"], FLOAT32, f"{case}/grad_norms")


def _gradient(fusion: FeatureFusion, decoder: TransformerDecoder, name: str) -> torch.Tensor:
    """Gradient of a parameter by its published name."""
    ours, block = our_parameters(fusion, decoder)[name]
    module, _, inner = ours.partition(".")
    gradient = {"fusion": fusion, "decoder": decoder}[module].get_parameter(inner).grad
    assert gradient is not None
    if block is None:
        return gradient
    return gradient[block].T if inner.endswith("weight") else gradient[block][0]
