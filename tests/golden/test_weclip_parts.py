"""The parts of WeCLIP against the published ones (``weclip.npz``)."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.closeness import FLOAT32, SAME_PIXELS, Arrays, assert_close_rel, tensor
from tests.golden.published_heads import (
    Weights,
    build_decoder,
    build_fusion,
    load_heads,
    our_parameters,
)
from wsss.cams.affinity import Affinity, balance, propagate_maps
from wsss.cams.maps import scale_maps
from wsss.labels.online import online_labels, score_stacks
from wsss.labels.par import pixel_adaptive_refinement
from wsss.refine.blocks.decoder import TransformerDecoder
from wsss.refine.blocks.fusion import FeatureFusion, feature_affinity
from wsss.refine.blocks.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window
from wsss.refine.blocks.refinement import block_distances, select_near, trusted_affinity

GOLDEN = "weclip.npz"
BOXES = {"rfm_coco": 0.7}
PLAIN_BLOCKS = 8


@pytest.mark.parametrize(
    ("image", "iterations", "expected"),
    [
        ("par/image", 1, "par/out_1it"),
        ("par/image", 20, "par/out_20it"),
        ("par/image_other_size", 20, "par/out_20it_other_size"),
    ],
)
def test_par(
    arrays: Arrays, image: str, iterations: int, expected: str, device: torch.device
) -> None:
    photo, masks = (tensor(arrays, name, device) for name in (image, "par/masks"))
    refined = pixel_adaptive_refinement(photo, masks, iterations=iterations)
    assert_close_rel(refined, arrays[expected], FLOAT32, expected)


def test_par_of_a_pseudo_label(arrays: Arrays, device: torch.device) -> None:
    stacks = [key for key in arrays if key.endswith("/cam_stack")]
    assert stacks
    for key in stacks:
        image = tensor(arrays, "image", device)[_image(key.removesuffix("/cam_stack"))][None]
        refined = pixel_adaptive_refinement(image, tensor(arrays, key, device)[None])
        name = key.replace("cam_stack", "par_out")
        assert_close_rel(refined[0], arrays[name], FLOAT32, name)


def _losses(arrays: Arrays) -> list[str]:
    return sorted(key.removesuffix("/aff_loss") for key in arrays if key.endswith("/aff_loss"))


def test_losses_and_their_gradients(arrays: Arrays, device: torch.device) -> None:
    cases = _losses(arrays)
    assert len(cases) >= 2
    for case in cases:
        labels = tensor(arrays, f"{case.rpartition('/')[0]}/label", device)
        logits = tensor(arrays, "seg_logits", device).requires_grad_()
        affinity = tensor(arrays, "affinity", device).requires_grad_()
        grid = (logits.shape[2], logits.shape[3])
        near = window(grid, int(case.rpartition("/r")[2]), device)
        np.testing.assert_array_equal(near.cpu().numpy(), arrays[f"{case}/radius_mask"] == 1, case)
        pairs = affinity_labels(labels, grid, near)
        np.testing.assert_array_equal(pairs.cpu().numpy(), arrays[f"{case}/affinity_label"], case)
        assert int((pairs == 1).sum()) + 1 == int(arrays[f"{case}/aff_pos_count"])
        assert int((pairs == 0).sum()) + 1 == int(arrays[f"{case}/aff_neg_count"])
        seg = balanced_cross_entropy(logits, labels)
        aff = affinity_loss(affinity, pairs)
        total = seg + 0.1 * aff
        total.backward()
        for name, loss in (("seg_loss", seg), ("aff_loss", aff), ("total_loss", total)):
            assert_close_rel(loss, arrays[f"{case}/{name}"], FLOAT32, f"{case}/{name}")
        assert_close_rel(logits.grad, arrays[f"{case}/grad_seg_logits"], FLOAT32, case)
        assert_close_rel(affinity.grad, arrays[f"{case}/grad_affinity"], FLOAT32, case)


def _maps(arrays: Arrays, case: str, device: torch.device) -> torch.Tensor:
    return scale_maps(tensor(arrays, f"{case}/cam_refined", device), "guarded_twice")


def _phases(arrays: Arrays) -> dict[str, list[str]]:
    by_phase: dict[str, list[str]] = {}
    for key in sorted(arrays):
        if m := re.fullmatch(r"([a-z0-9_]+)/(img\d+)/cam_refined", key):
            by_phase.setdefault(m[1], []).append(f"{m[1]}/{m[2]}")
    return by_phase


def test_stacks(arrays: Arrays, device: torch.device) -> None:
    for key in [key for key in arrays if key.endswith("/cam_stack")]:
        maps = _maps(arrays, key.removesuffix("/cam_stack"), device)
        size = (arrays[key].shape[1], arrays[key].shape[2])
        stacks = score_stacks(maps, torch.zeros(len(maps), dtype=torch.long), 1, size)
        assert_close_rel(stacks[0], arrays[key], FLOAT32, key)


def test_labels_of_a_whole_batch(arrays: Arrays, device: torch.device) -> None:
    phases = _phases(arrays)
    assert phases
    for phase, cases in phases.items():
        image_numbers = [int(case.rpartition("img")[2]) for case in cases]
        maps = [_maps(arrays, case, device) for case in cases]
        classes = [torch.from_numpy(arrays[f"{case}/class_ids"]) for case in cases]
        image_index = torch.repeat_interleave(
            torch.arange(len(cases)), torch.tensor([len(image_maps) for image_maps in maps])
        )
        expected = np.stack([arrays[f"{case}/label"] for case in cases])
        actual = online_labels(
            tensor(arrays, "image", device)[image_numbers],
            torch.cat(maps),
            image_index,
            torch.cat(classes),
            (expected.shape[1], expected.shape[2]),
        )
        for case, mine, theirs in zip(cases, actual.cpu().numpy(), expected, strict=True):
            share = (mine == theirs).mean()
            assert share >= SAME_PIXELS, f"{phase}: {case}: {share:.5f} of the pixels agree"


def _cases(arrays: Arrays) -> list[str]:
    cases = {m[0] for key in arrays if (m := re.match(r"[a-z0-9_]+/img\d+", key))}
    return sorted(case for case in cases if f"{case}/transition" in arrays)


def _image(case: str) -> int:
    return int(case.rpartition("img")[2])


def _attention(
    arrays: Arrays, case: str, blocks: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Of the last blocks, patches only: (1, blocks, N, N)."""
    return tensor(arrays, "attention", device)[_image(case)][None, -blocks:, 1:, 1:]


def test_nearest_blocks_and_trusted_affinity(arrays: Arrays, device: torch.device) -> None:
    cases = [case for case in _cases(arrays) if f"{case}/layer_score" in arrays]
    assert cases
    for case in cases:
        affinity = tensor(arrays, "affinity", device)[_image(case)][None]
        attention = _attention(arrays, case, len(arrays[f"{case}/layer_score"]), device)
        distances = block_distances(affinity, attention, "signed")
        assert_close_rel(distances[0], arrays[f"{case}/layer_score"], FLOAT32, case)
        nearest = select_near(distances)
        selected = nearest[0].cpu().numpy()
        np.testing.assert_array_equal(selected, arrays[f"{case}/layer_kept"] == 1, case)
        trusted = trusted_affinity(affinity, attention, nearest)
        assert_close_rel(trusted[0], arrays[f"{case}/affinity_before_sinkhorn"], FLOAT32, case)


def test_plain_phase_is_the_mean_of_the_last_blocks(arrays: Arrays) -> None:
    """Of the file alone: nothing of ours computes, so there is no device."""
    cases = [case for case in _cases(arrays) if case.startswith("phase1/")]
    assert cases
    for case in cases:
        mean = _attention(arrays, case, PLAIN_BLOCKS).mean(1)
        assert_close_rel(mean[0], arrays[f"{case}/affinity_before_sinkhorn"], FLOAT32, case)


def test_transition_and_refined_maps(arrays: Arrays, device: torch.device) -> None:
    for case in _cases(arrays):
        weights = tensor(arrays, f"{case}/affinity_before_sinkhorn", device)[None]
        affinity = balance(weights)
        assert_close_rel(_squared(affinity)[0], arrays[f"{case}/transition"], FLOAT32, case)
        maps = tensor(arrays, f"{case}/cam", device)
        refined = propagate_maps(
            affinity,
            maps,
            torch.zeros(len(maps), dtype=torch.long),
            box_threshold=BOXES.get(case.partition("/")[0], 0.4),
            box_edge="exclusive",
        )
        assert_close_rel(refined, arrays[f"{case}/cam_refined"], FLOAT32, case)


def _squared(affinity: Affinity) -> torch.Tensor:
    matrix = affinity.matrix()
    half = (matrix + matrix.transpose(1, 2)) / 2
    return half @ half


@pytest.fixture(scope="module")
def heads(golden_dir: Path) -> Weights:
    return load_heads(golden_dir / "weclip_heads.safetensors")


def _features(arrays: Arrays, device: torch.device) -> tuple[torch.Tensor, tuple[int, int]]:
    maps = tensor(arrays, "feature_maps", device)  # blocks, B, D, h, w
    return maps.flatten(3).transpose(2, 3), (maps.shape[3], maps.shape[4])


def test_fusion_affinity_and_logits(arrays: Arrays, heads: Weights, device: torch.device) -> None:
    fusion, decoder = build_fusion(heads).to(device), build_decoder(heads).to(device)
    with torch.no_grad():
        fused = fusion(*_features(arrays, device))
        assert_close_rel(fused, arrays["fused"], FLOAT32, "fused")
        assert_close_rel(feature_affinity(fused), arrays["affinity"], FLOAT32, "affinity")
        assert_close_rel(decoder(fused), arrays["seg_logits"], FLOAT32, "seg_logits")


def test_gradients_of_the_whole_head(arrays: Arrays, heads: Weights, device: torch.device) -> None:
    cases = sorted(key.removesuffix("/aff_loss") for key in arrays if key.endswith("/aff_loss"))
    assert cases
    for case in cases:
        fusion, decoder = build_fusion(heads).to(device), build_decoder(heads).to(device)
        features, grid = _features(arrays, device)
        fused = fusion(features, grid)
        labels = tensor(arrays, f"{case.rpartition('/')[0]}/label", device)
        near = window(grid, int(case.rpartition("/r")[2]), device)
        pairs = affinity_labels(labels, grid, near)
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
    if block is None:
        return gradient
    return gradient[block].T if inner.endswith("weight") else gradient[block][0]
