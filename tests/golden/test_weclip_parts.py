"""Pixel-adaptive refinement and the losses against the published WeCLIP (``weclip.npz``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from tests.golden.closeness import FLOAT32, assert_close_rel
from wsss.labels.par import pixel_adaptive_refinement
from wsss.refine.blocks.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window

Arrays = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def arrays(load_golden: Callable[[str], Arrays]) -> Arrays:
    return load_golden("weclip.npz")


def _tensor(arrays: Arrays, name: str) -> torch.Tensor:
    return torch.from_numpy(arrays[name])


@pytest.mark.parametrize(
    ("image", "iterations", "expected"),
    [
        ("par/image", 1, "par/out_1it"),
        ("par/image", 20, "par/out_20it"),
        ("par/image_other_size", 20, "par/out_20it_other_size"),
    ],
)
def test_par(arrays: Arrays, image: str, iterations: int, expected: str) -> None:
    refined = pixel_adaptive_refinement(
        _tensor(arrays, image), _tensor(arrays, "par/masks"), iterations=iterations
    )
    assert_close_rel(refined, arrays[expected], FLOAT32, expected)


def test_par_of_a_pseudo_label(arrays: Arrays) -> None:
    stacks = [key for key in arrays if key.endswith("/cam_stack")]
    assert stacks
    for key in stacks:
        match = re.search(r"img(\d+)", key)
        assert match is not None
        image = _tensor(arrays, "image")[int(match[1])][None]
        refined = pixel_adaptive_refinement(image, _tensor(arrays, key)[None])
        name = key.replace("cam_stack", "par_out")
        assert_close_rel(refined[0], arrays[name], FLOAT32, name)


def _losses(arrays: Arrays) -> list[str]:
    return sorted(key.removesuffix("/aff_loss") for key in arrays if key.endswith("/aff_loss"))


def test_losses_and_their_gradients(arrays: Arrays) -> None:
    cases = _losses(arrays)
    assert len(cases) >= 2
    for case in cases:
        labels = _tensor(arrays, f"{case.rpartition('/')[0]}/label")
        logits = _tensor(arrays, "seg_logits").requires_grad_()
        affinity = _tensor(arrays, "affinity").requires_grad_()
        grid = (logits.shape[2], logits.shape[3])
        near = window(grid, int(case.rpartition("/r")[2]))
        np.testing.assert_array_equal(near.numpy(), arrays[f"{case}/radius_mask"] == 1, case)
        pairs = affinity_labels(labels, grid, near)
        np.testing.assert_array_equal(pairs.numpy(), arrays[f"{case}/affinity_label"], case)
        assert int((pairs == 1).sum()) + 1 == int(arrays[f"{case}/aff_pos_count"])
        assert int((pairs == 0).sum()) + 1 == int(arrays[f"{case}/aff_neg_count"])
        seg = balanced_cross_entropy(logits, labels)
        aff = affinity_loss(affinity, pairs)
        total = seg + 0.1 * aff
        total.backward()
        for name, loss in (("seg_loss", seg), ("aff_loss", aff), ("total_loss", total)):
            assert_close_rel(loss, arrays[f"{case}/{name}"], FLOAT32, f"{case}/{name}")
        assert logits.grad is not None
        assert affinity.grad is not None
        assert_close_rel(logits.grad, arrays[f"{case}/grad_seg_logits"], FLOAT32, case)
        assert_close_rel(affinity.grad, arrays[f"{case}/grad_affinity"], FLOAT32, case)
