"""Labels and dense CRF against the published CLIP-ES (``clip_es.npz``, arrays ``crf_*``)."""

import importlib.util
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.golden.closeness import HALF, Arrays, assert_close_rel
from wsss.config.labels import CrfConfig, MasksConfig
from wsss.labels.background import with_background
from wsss.labels.crf import appearance_image, dense_crf, posterior, unary_energy
from wsss.labels.device_crf import posteriors
from wsss.labels.ignore import ignore_band
from wsss.labels.pseudo import pseudo_label
from wsss.labels.upsample import upsample

GOLDEN = "clip_es.npz"
CRF = CrfConfig(
    backend="pydensecrf",
    iterations=10,
    gaussian_sxy=1,
    gaussian_compat=3,
    bilateral_sxy=67,
    bilateral_srgb=3,
    bilateral_compat=4,
    image="wrapped",
    unary="float16",
)
PUBLISHED = MasksConfig(crf=CRF, min_confidence=0.95)
RECOMPUTED, STORED, SAME_LABELS = 5e-3, 1e-5, 0.999
ON_TORCH = CRF.model_copy(update={"backend": "torch"})
TORCH_OFF, SAME_ON_TORCH = 0.02, 0.9995
compiled = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None,
    reason="pydensecrf2 (wsss[crf]) is not installed, with which these tensors were made",
)


@dataclass(frozen=True)
class Case:
    """One image at one box threshold; not every threshold has every array."""

    arrays: Arrays
    image: str
    threshold: str

    def __getitem__(self, name: str) -> np.ndarray:
        array = self.find(name)
        assert array is not None, f"{self.image} has no {name} for {self.threshold}"
        return array

    def find(self, name: str) -> np.ndarray | None:
        for key in (f"{self.image}/{name}_{self.threshold}", f"{self.image}/{name}"):
            if key in self.arrays:
                return self.arrays[key]
        return None

    @property
    def classes(self) -> list[int]:
        return [int(index) for index in self["class_ids"]]

    @property
    def saved(self) -> np.ndarray:
        """The class scores as saved: stored, or else what the CRF was given without background."""
        stored = self.find("saved_half")
        return self["crf_prob_in"][1:] if stored is None else stored


@pytest.fixture
def cases(arrays: Arrays) -> list[Case]:
    matches = [re.fullmatch(r"(img\d+)/crf_label_(t\d+)", key) for key in arrays]
    listed = [Case(arrays, match[1], match[2]) for match in matches if match]
    assert listed, "the golden file holds no CRF label"
    return listed


def labels_agree(label: np.ndarray, case: Case) -> None:
    expected = case["crf_label"]
    assert label.dtype == np.uint8
    assert set(np.unique(expected)) <= {0, 255, *(index + 1 for index in case.classes)}
    assert (label == expected).mean() >= SAME_LABELS, f"{case.image} {case.threshold}"


def test_initial_cam_at_image_size(arrays: Arrays) -> None:
    prefixes = [key.split("/")[0] for key in arrays if re.fullmatch(r"img\d+/cam_image_size", key)]
    assert prefixes
    for prefix in prefixes:
        expected = arrays[f"{prefix}/cam_image_size"]
        actual = upsample(arrays[f"{prefix}/cam"], expected.shape[1:])
        assert_close_rel(actual, expected, 1e-6, f"{prefix}/cam_image_size")


def test_crf_image_exactly(cases: list[Case]) -> None:
    for case in cases:
        actual = appearance_image(case["image_uint8"], CRF)
        np.testing.assert_array_equal(actual, case["crf_image"])


def test_probabilities_with_background_in_half_precision(cases: list[Case]) -> None:
    seen = 0
    for case in cases:
        large = case.find("cam_refined_image_size")
        if large is None:
            continue
        seen += 1
        assert_close_rel(large.astype(np.float16), case["saved_half"], HALF, "saved_half")
        stack = with_background(large.astype(np.float16), PUBLISHED.background)
        assert stack.dtype == np.float16
        assert_close_rel(stack, case["crf_prob_in"], HALF, "crf_prob_in")
    assert seen
    for case in cases:  # from what was saved, exactly
        stack = with_background(case.saved, PUBLISHED.background)
        np.testing.assert_array_equal(stack, case["crf_prob_in"])


def test_unary(cases: list[Case]) -> None:
    stored = [case for case in cases if case.find("crf_unary") is not None]
    assert stored
    for case in stored:
        unary = unary_energy(case["crf_prob_in"], CRF)
        assert unary.dtype == np.float32
        assert_close_rel(unary, case["crf_unary"], HALF, "crf_unary")


@compiled
def test_posterior_from_stored_unary_and_image(cases: list[Case]) -> None:
    stored = [case for case in cases if case.find("crf_unary") is not None]
    assert stored
    for case in stored:
        actual = posterior(case["crf_unary"], case["crf_image"], CRF)
        assert_close_rel(actual, case["crf_posterior"], STORED, "crf_posterior")


@compiled
def test_posterior_and_label_recomputed(cases: list[Case]) -> None:
    for case in cases:
        stack = with_background(case.saved, PUBLISHED.background)
        probs = dense_crf(stack, case["image_uint8"], CRF)
        assert_close_rel(probs, case["crf_posterior"], RECOMPUTED, "crf_posterior")
        label = np.array([0, *(index + 1 for index in case.classes)], np.uint8)[probs.argmax(0)]
        labels_agree(ignore_band(label, probs.max(0), PUBLISHED.min_confidence), case)


def test_posterior_and_label_on_torch(cases: list[Case]) -> None:
    for case in cases:
        stack = with_background(case.saved, PUBLISHED.background)
        assert_agrees(dense_crf(stack, case["image_uint8"], ON_TORCH), case)


def test_posteriors_of_a_batch(cases: list[Case], device: torch.device) -> None:
    """As a GPU takes predictions: all images at once."""
    stacks = [with_background(case.saved, PUBLISHED.background) for case in cases]
    energies = [torch.from_numpy(unary_energy(stack, ON_TORCH)).to(device) for stack in stacks]
    photos = [appearance_image(case["image_uint8"], ON_TORCH) for case in cases]
    refined = posteriors(energies, photos, [ON_TORCH] * len(cases))
    for case, probs in zip(cases, refined, strict=True):
        assert_agrees(probs.cpu().numpy(), case)


def assert_agrees(probs: np.ndarray, case: Case) -> None:
    """With pydensecrf's posterior and its arg max, within what torch may differ."""
    expected = case["crf_posterior"].astype(np.float32)
    np.testing.assert_allclose(probs, expected, atol=TORCH_OFF)
    assert (probs.argmax(0) == expected.argmax(0)).mean() >= SAME_ON_TORCH


@compiled
def test_whole_chain_from_scores_to_train_mask(cases: list[Case]) -> None:
    for case in cases:
        large = case.find("cam_refined_image_size")
        scores = (case.saved if large is None else large).astype(np.float32)
        label, confidence = pseudo_label(scores, case.classes, case["image_uint8"], PUBLISHED)
        assert not (label == 255).any()
        labels_agree(ignore_band(label, confidence, PUBLISHED.min_confidence), case)


@compiled
def test_the_departures_change_the_posterior(cases: list[Case]) -> None:
    """The data distinguishes published from corrected, so the tests above check the options."""
    for name, value in (("image", "raw"), ("unary", "float32")):
        config = CRF.model_copy(update={name: value})
        differences = []
        for case in cases:
            stack = with_background(case.saved, PUBLISHED.background)
            probs = dense_crf(stack, case["image_uint8"], config)
            differences.append(np.abs(probs - case["crf_posterior"]).max())
        assert max(differences) > 1e-4, name
