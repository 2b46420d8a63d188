"""The CRF on torch: against pydensecrf on drawn scenes and photographs, and in batches."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from wsss.config.labels import CrfConfig
from wsss.labels.crf import appearance_image, dense_crf, unary_energy
from wsss.labels.lattice_crf import batch_posterior

VOC = Path(os.environ.get("WSSS_SHARED", ""), "data", "voc-subset")
PHOTOS, SEED = 3, 0
LARGEST, AGREEMENT = 0.02, 0.9995


def settings(**options: object) -> CrfConfig:
    return CrfConfig.model_validate({"backend": "torch", **options})


def scene(labels: int, size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coarse random probabilities and a photo of blobs with noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((labels, 4, 5), dtype=np.float32) ** 2 + 0.01
    height, width = size
    probabilities = np.stack([cv2.resize(plane, (width, height)) for plane in coarse])
    blobs = cv2.resize(generator.integers(0, 256, (3, 4, 3), np.uint8), (width, height))
    noisy = blobs + generator.normal(0, 3, blobs.shape)
    return probabilities / probabilities.sum(0), noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (1, {}),
        (2, {"iterations": 3}),
        (3, {"image": "wrapped", "unary": "float16"}),
        (3, {"gaussian_sxy": 1e5, "bilateral_sxy": 1e6, "bilateral_srgb": 1e6}),
        (3, {"gaussian_sxy": 0.5, "bilateral_sxy": 5.0, "bilateral_srgb": 0.3}),
        (3, {"gaussian_compat": 0.0}),
        (3, {"gaussian_sxy": 0.2}),
        (3, {"gaussian_sxy": 0.26}),
        (3, {"gaussian_sxy": 0.27}),
        (3, {"bilateral_compat": 0.0}),
        (2, {"gaussian_compat": 1e4, "bilateral_compat": 1e4}),
        (21, {}),
        (81, {"iterations": 4}),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(40, 55), (1, 1), (1, 30), (2, 3)], ids=str)
def test_equals_pydensecrf(labels: int, options: dict[str, object], size: tuple[int, int]) -> None:
    pytest.importorskip("pydensecrf", reason="pydensecrf2 (wsss[crf]) is not installed")
    probabilities, image = scene(labels, size, seed=labels)
    actual = dense_crf(probabilities, image, settings(**options))
    expected = dense_crf(probabilities, image, settings(**options, backend="pydensecrf"))
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, atol=LARGEST)
    assert np.abs(actual - expected).mean() < 1e-3
    np.testing.assert_allclose(actual.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("deviation", [0.1, 0.26])
@pytest.mark.parametrize("labels", [2, 5])
def test_a_kernel_without_neighbours_needs_no_lattice(
    labels: int, deviation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pydensecrf computes it with one: equal labels, posteriors within 1e-3."""
    pytest.importorskip("pydensecrf", reason="pydensecrf2 (wsss[crf]) is not installed")
    probabilities, image = scene(labels, (60, 80), seed=labels)
    config = settings(backend="pydensecrf", gaussian_sxy=deviation)
    actual = dense_crf(probabilities, image, config)
    monkeypatch.setattr("wsss.labels.crf.ALONE", 0.0)
    expected = dense_crf(probabilities, image, config)
    assert not np.array_equal(actual, expected)
    np.testing.assert_allclose(actual, expected, atol=1e-3)
    np.testing.assert_array_equal(actual.argmax(0), expected.argmax(0))


def truth_scores() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, photo, and the truth of a photo as soft, blurred and noisy probabilities."""
    generator = np.random.default_rng(SEED)
    for path in sorted((VOC / "SegmentationClass").glob("*.png"))[:PHOTOS]:
        truth = np.array(Image.open(path))
        photo = np.array(Image.open(VOC / "JPEGImages" / f"{path.stem}.jpg").convert("RGB"))
        classes = sorted({0, *np.unique(truth).tolist()} - {255})
        planes = [cv2.GaussianBlur((truth == c).astype(np.float32), (0, 0), 12) for c in classes]
        scores = np.stack(planes) + generator.uniform(0, 0.3, (len(classes), *truth.shape))
        yield path.stem, photo, (scores / scores.sum(0)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.skipif(not VOC.is_dir(), reason="no photographs: WSSS_SHARED names no folder of them")
def test_equals_pydensecrf_on_photographs() -> None:
    pytest.importorskip("pydensecrf", reason="pydensecrf2 (wsss[crf]) is not installed")
    for name, photo, scores in truth_scores():
        actual = dense_crf(scores, photo, settings())
        expected = dense_crf(scores, photo, settings(backend="pydensecrf"))
        assert np.abs(actual - expected).max() <= LARGEST, name
        assert (actual.argmax(0) == expected.argmax(0)).mean() >= AGREEMENT, name


def test_a_batch_gives_what_each_image_gives() -> None:
    """Of other sizes, and numbers of labels on both sides of every threshold."""
    sizes = [(20, 30), (33, 17), (20, 30), (1, 1), (12, 9)]
    scenes = [scene(count, size, 7) for count, size in zip((3, 2, 40, 1, 17), sizes, strict=True)]
    config = settings(gaussian_sxy=2.0, bilateral_sxy=8.0)
    unary = [torch.from_numpy(unary_energy(scores, config)) for scores, _ in scenes]
    images = [torch.from_numpy(appearance_image(image, config)) for _, image in scenes]
    together = batch_posterior(unary, images, config)
    for posterior, (scores, image) in zip(together, scenes, strict=True):
        alone = dense_crf(scores, image, config)
        np.testing.assert_allclose(posterior.numpy(), alone, atol=2e-5)


def test_threads_do_not_change_the_result() -> None:
    scores, image = scene(3, (40, 55), seed=3)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(dense_crf(scores, image, settings()))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*results)


def test_the_posterior_can_be_the_target_of_a_loss() -> None:
    scores, image = scene(2, (6, 8), seed=0)
    logits = torch.from_numpy(np.log(scores)).requires_grad_()
    (target,) = batch_posterior([-logits], [torch.from_numpy(image)], settings())
    (logits.softmax(0) * target).sum().backward()
    assert logits.grad is not None
    assert not target.requires_grad
