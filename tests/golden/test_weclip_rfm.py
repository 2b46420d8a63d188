"""The refinement module and what follows from it against the published WeCLIP (``weclip.npz``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from tests.golden.closeness import FLOAT32, assert_close_rel
from wsss.cams.affinity import Affinity, balance, propagate_maps
from wsss.refine.blocks.refinement import block_distances, select_near, trusted_affinity

Arrays = Mapping[str, np.ndarray]

BOXES = {"rfm_coco": 0.7}
PLAIN_BLOCKS = 8


@pytest.fixture(scope="module")
def arrays(load_golden: Callable[[str], Arrays]) -> Arrays:
    return load_golden("weclip.npz")


def _cases(arrays: Arrays) -> list[str]:
    cases = {m[0] for key in arrays if (m := re.match(r"[a-z0-9_]+/img\d+", key))}
    return sorted(case for case in cases if f"{case}/transition" in arrays)


def _image(case: str) -> int:
    return int(case.rpartition("img")[2])


def _attention(arrays: Arrays, case: str, blocks: int) -> torch.Tensor:
    """Of the last blocks, patches only: (1, blocks, N, N)."""
    return torch.from_numpy(arrays["attention"])[_image(case)][None, -blocks:, 1:, 1:]


def test_nearest_blocks_and_trusted_affinity(arrays: Arrays) -> None:
    cases = [case for case in _cases(arrays) if f"{case}/layer_score" in arrays]
    assert cases
    for case in cases:
        affinity = torch.from_numpy(arrays["affinity"])[_image(case)][None]
        attention = _attention(arrays, case, len(arrays[f"{case}/layer_score"]))
        distances = block_distances(affinity, attention, "signed")
        assert_close_rel(distances[0], arrays[f"{case}/layer_score"], FLOAT32, case)
        nearest = select_near(distances)
        np.testing.assert_array_equal(nearest[0].numpy(), arrays[f"{case}/layer_kept"] == 1, case)
        trusted = trusted_affinity(affinity, attention, nearest)
        assert_close_rel(trusted[0], arrays[f"{case}/affinity_before_sinkhorn"], FLOAT32, case)


def test_plain_phase_is_the_mean_of_the_last_blocks(arrays: Arrays) -> None:
    cases = [case for case in _cases(arrays) if case.startswith("phase1/")]
    assert cases
    for case in cases:
        mean = _attention(arrays, case, PLAIN_BLOCKS).mean(1)
        assert_close_rel(mean[0], arrays[f"{case}/affinity_before_sinkhorn"], FLOAT32, case)


def test_transition_and_refined_maps(arrays: Arrays) -> None:
    for case in _cases(arrays):
        weights = torch.from_numpy(arrays[f"{case}/affinity_before_sinkhorn"])[None]
        affinity = balance(weights)
        assert_close_rel(_squared(affinity)[0], arrays[f"{case}/transition"], FLOAT32, case)
        maps = torch.from_numpy(arrays[f"{case}/cam"])
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
