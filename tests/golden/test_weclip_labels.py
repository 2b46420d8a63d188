"""Online pseudo labels against the published WeCLIP (``weclip.npz``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from tests.golden.closeness import FLOAT32, assert_close_rel
from wsss.cams.maps import scale_maps
from wsss.labels.online import online_labels, score_stacks

Arrays = Mapping[str, np.ndarray]

SAME_PIXELS = 0.999


@pytest.fixture(scope="module")
def arrays(load_golden: Callable[[str], Arrays]) -> Arrays:
    return load_golden("weclip.npz")


def _maps(arrays: Arrays, case: str) -> torch.Tensor:
    return scale_maps(torch.from_numpy(arrays[f"{case}/cam_refined"]), "guarded_twice")


def _phases(arrays: Arrays) -> dict[str, list[str]]:
    by_phase: dict[str, list[str]] = {}
    for key in sorted(arrays):
        if m := re.fullmatch(r"([a-z0-9_]+)/(img\d+)/cam_refined", key):
            by_phase.setdefault(m[1], []).append(f"{m[1]}/{m[2]}")
    return by_phase


def test_stacks(arrays: Arrays) -> None:
    for key in [key for key in arrays if key.endswith("/cam_stack")]:
        maps = _maps(arrays, key.removesuffix("/cam_stack"))
        size = (arrays[key].shape[1], arrays[key].shape[2])
        stacks = score_stacks(maps, torch.zeros(len(maps), dtype=torch.long), 1, size)
        assert_close_rel(stacks[0], arrays[key], FLOAT32, key)


def test_labels_of_a_whole_batch(arrays: Arrays) -> None:
    phases = _phases(arrays)
    assert phases
    for phase, cases in phases.items():
        image_numbers = [int(case.rpartition("img")[2]) for case in cases]
        maps = [_maps(arrays, case) for case in cases]
        classes = [torch.from_numpy(arrays[f"{case}/class_ids"]) for case in cases]
        image_index = torch.repeat_interleave(
            torch.arange(len(cases)), torch.tensor([len(image_maps) for image_maps in maps])
        )
        expected = np.stack([arrays[f"{case}/label"] for case in cases])
        actual = online_labels(
            torch.from_numpy(arrays["image"])[image_numbers],
            torch.cat(maps),
            image_index,
            torch.cat(classes),
            (expected.shape[1], expected.shape[2]),
        )
        for case, mine, theirs in zip(cases, actual.numpy(), expected, strict=True):
            share = (mine == theirs).mean()
            assert share >= SAME_PIXELS, f"{phase}: {case}: {share:.5f} of the pixels agree"
