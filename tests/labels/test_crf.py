"""Dense CRF: against brute force, its two departures, and odd inputs."""

import functools
from collections.abc import Callable
from typing import get_args

import cv2
import numpy as np
import pytest

import wsss
from tests.labels.mean_field import mean_field
from wsss.config.errors import ConfigError
from wsss.config.labels import CrfBackend, CrfConfig
from wsss.config.load import from_mapping
from wsss.labels import crf as crf_module
from wsss.labels.crf import appearance_image, bounded, dense_crf, unary_energy
from wsss.labels.upsample import upsample
from wsss.pipeline.runs import Runs

# The library filters on a permutohedral lattice, which is an approximation: on this scene it is off
# by 5e-3 at the object's border and by 6e-5 on average; 2e-2 and 2e-4 after 3 iterations.
LARGEST, MEAN = 3e-2, 2e-4
CHANGES = (
    {},
    {"gaussian_sxy": 2.0},
    {"gaussian_compat": 6.0},
    {"bilateral_sxy": 10.0},
    {"bilateral_srgb": 20.0},
    {"bilateral_compat": 6.0},
    {"iterations": 3},
)


CHOSEN: dict[str, object] = {}


@pytest.fixture(autouse=True, params=get_args(CrfBackend))
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs with each backend."""
    if request.param == "pydensecrf":
        pytest.importorskip("pydensecrf", reason="pydensecrf2 (wsss[crf]) is not installed")
    monkeypatch.setitem(CHOSEN, "backend", request.param)
    return request.param


def crf(**options: object) -> CrfConfig:
    return CrfConfig.model_validate(CHOSEN | {"image": "raw", "unary": "float32"} | options)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A red ellipse on blue, and blurred, shifted probabilities of three labels for it."""
    height, width = 30, 40
    down, across = np.mgrid[:height, :width]
    ellipse = ((down - 15) / 9) ** 2 + ((across - 20) / 12) ** 2 < 1
    image = np.where(ellipse[..., None], [200, 60, 40], [30, 120, 200])
    image += np.random.default_rng(0).integers(-2, 3, image.shape)
    blob = np.exp(-(((down - 15) / 6.6) ** 2 + ((across - 18) / 8.8) ** 2) / 2)
    probabilities = np.stack([1 - blob, 0.9 * blob, 0.1 * blob]).astype(np.float32)
    return probabilities, image.astype(np.uint8)


@functools.cache
def by_default() -> np.ndarray:
    """The brute force of the scene with the default settings."""
    return mean_field(*scene(), crf())


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_agrees_with_brute_force(change: dict[str, float]) -> None:
    probabilities, image = scene()
    actual = dense_crf(probabilities, image, crf(**change))
    expected = mean_field(probabilities, image, crf(**change)) if change else by_default()
    difference = np.abs(actual - expected)
    np.testing.assert_array_equal(actual.argmax(0), expected.argmax(0))
    assert difference.max() <= LARGEST
    assert difference.mean() <= MEAN
    if change:  # the scene distinguishes this setting from the default
        assert np.abs(actual - by_default()).mean() > 3 * difference.mean()


def test_moves_labels_to_the_object() -> None:
    probabilities, image = scene()
    ellipse = image[..., 0] > 100
    before = (probabilities.argmax(0) == 1) == ellipse
    after = (dense_crf(probabilities, image, crf()).argmax(0) == 1) == ellipse
    assert before.mean() < 0.95
    assert after.all()


def test_is_a_distribution_over_the_given_labels() -> None:
    probabilities, image = scene()
    actual = dense_crf(probabilities, image, crf())
    assert actual.dtype == np.float32
    assert actual.shape == probabilities.shape
    np.testing.assert_allclose(actual.sum(0), 1, atol=1e-5)


def test_a_single_label_wins_everywhere() -> None:
    image = scene()[1]
    actual = dense_crf(np.full((1, 30, 40), 0.3, np.float32), image, crf())
    np.testing.assert_array_equal(actual, 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet([1, 1, 1], shape).transpose(2, 0, 1).astype(np.float32)
    image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
    actual = dense_crf(probabilities, image, crf())
    assert actual.shape == (3, *shape)
    np.testing.assert_allclose(actual.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_constant_image_keeps_a_constant_field_constant(level: int) -> None:
    probabilities = np.broadcast_to(np.float32([0.3, 0.7])[:, None, None], (2, 12, 15))
    actual = dense_crf(probabilities, np.full((12, 15, 3), level, np.uint8), crf())
    assert np.isfinite(actual).all()
    assert (actual.argmax(0) == 1).all()


def test_extreme_probabilities_stay_finite() -> None:
    _, image = scene()
    probabilities = np.zeros((2, 30, 40), np.float32)
    probabilities[1] = 7.0  # clipped to 1
    actual = dense_crf(probabilities, image, crf())
    np.testing.assert_allclose(actual[1], 1, atol=1e-3)


def test_layout_in_memory_does_not_matter() -> None:
    probabilities, image = scene()
    expected = dense_crf(probabilities, image, crf())
    channels_last = np.ascontiguousarray(probabilities.transpose(1, 2, 0)).transpose(2, 0, 1)
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    for view in (channels_last, np.asfortranarray(probabilities), probabilities.astype(np.float64)):
        np.testing.assert_array_equal(dense_crf(view, mirrored, crf()), expected)


def test_inputs_are_not_changed() -> None:
    probabilities, image = scene()
    copies = probabilities.copy(), image.copy()
    for kind in ("raw", "wrapped"):
        for precision in ("float32", "float16"):
            dense_crf(probabilities, image, crf(image=kind, unary=precision, iterations=1))
    np.testing.assert_array_equal(probabilities, copies[0])
    np.testing.assert_array_equal(image, copies[1])


def test_inputs_that_cannot_be_written_are_taken() -> None:
    probabilities, image = scene()
    expected = dense_crf(probabilities, image, crf(iterations=1))
    probabilities.flags.writeable = image.flags.writeable = False
    np.testing.assert_array_equal(dense_crf(probabilities, image, crf(iterations=1)), expected)


def test_nan_is_refused() -> None:
    probabilities, image = scene()
    probabilities[1, 3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        dense_crf(probabilities, image, crf())


def test_wrapped_image_truncates_and_wraps_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], np.roll(levels, 7)], axis=1)[None]  # red, green, blue
    actual = appearance_image(image, crf(image="wrapped"))
    for column in range(256):
        for channel, mean in enumerate((104.008, 116.669, 122.675)):
            # int() truncates toward zero
            shifted = int(float(image[0, column, 2 - channel]) - mean)
            assert actual[0, column, channel] == shifted % 256
    assert appearance_image(image, crf()) is image


def test_half_precision_unary_is_that_of_float16() -> None:
    probabilities, _ = scene()
    half = unary_energy(probabilities, crf(unary="float16"))
    full = unary_energy(probabilities, crf())
    assert half.dtype == full.dtype == np.float32
    np.testing.assert_array_equal(half, half.astype(np.float16))
    assert 0 < np.abs(half - full).max() < 2e-2
    np.testing.assert_allclose(full.max(), -np.log(1e-5), rtol=1e-5)


ROW = 2058  # pixels


def row(sigma: float, posterior: Callable[..., np.ndarray]) -> list[int]:
    """The pixels of a row that the first one, which alone is sure, pulls to its label."""
    probabilities = np.full((2, 1, ROW), 0.5, np.float32)
    probabilities[:, 0, 0] = 0.9, 0.1
    image = np.zeros((1, ROW, 3), np.uint8)
    settings = crf(gaussian_sxy=sigma, bilateral_compat=0.0, iterations=1)
    return np.flatnonzero(posterior(probabilities, image, settings)[0, 0] > 0.501).tolist()


def test_far_pixels_never_share_a_cell_of_the_lattice(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinates of 16 bits, in steps of 3: pixel 2048 would come to lie where pixel 0 is."""
    wrapped = 3**0.5 * 2048 / (3 * 2**16)
    with pytest.raises(ValueError, match=r"gaussian_sxy is 0\.018.* too small for .* 2058 x 1 pix"):
        row(wrapped, dense_crf)
    assert row(6.1 * wrapped, dense_crf) == [0]  # the smallest that is taken is right
    monkeypatch.setattr(crf_module, "check_deviations", lambda *_: None)
    monkeypatch.setattr(crf_module, "ALONE", 0.0)  # such a kernel needs no lattice
    assert row(wrapped, dense_crf) == ([0, 2048] if backend == "pydensecrf" else [0])


@pytest.mark.parametrize(
    "change",
    [{"bilateral_srgb": 0.05, "bilateral_sxy": 0.02}, {"bilateral_sxy": 0.01}],
    ids=str,
)
def test_the_smallest_deviations_are_checked_with_the_image(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"the CRF's bilateral_sxy is 0\.0.* or bilateral_srgb"):
        dense_crf(np.full((2, 40, 400), 0.5), np.zeros((40, 400, 3), np.uint8), crf(**change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bilateral_srgb", 1e-8),
        ("bilateral_srgb", 0.049),
        ("bilateral_sxy", 1e-8),
        ("gaussian_sxy", 0.0),
        ("gaussian_sxy", float("inf")),
        ("bilateral_sxy", float("nan")),
        ("bilateral_srgb", 1e39),
        ("gaussian_compat", 1e30),
        ("iterations", 10**9),
    ],
)
def test_settings_that_no_image_can_have_are_refused_everywhere(name: str, value: float) -> None:
    photo, scores = np.zeros((8, 8, 3), np.uint8), np.full((2, 8, 8), 0.5, np.float32)
    sections = ("masks", "crf"), ("seeds", "crf"), ("predict", "crf_settings")
    for section, key in (*sections, ("refine", "weakclip")):
        inner = {"boundary": {name: value}} if key == "weakclip" else {name: value}
        with pytest.raises(ConfigError, match=f"{section}.{key}.*{name}: "):
            from_mapping({section: {key: inner}})
    with pytest.raises(ConfigError, match=rf"(?s)not a valid configuration.*{name}"):
        Runs({"sweep": {f"masks.crf.{name}": [value]}})
    with pytest.raises(ValueError, match=f"^{name}: "):
        wsss.dense_crf(photo, scores, **{name: value})
    with pytest.raises(ValueError, match=f"^{name}: "):
        wsss.pseudo_mask(photo, scores, crf={name: value})


def test_a_bounded_crf_is_close_to_the_exact_one() -> None:
    probabilities, image = scene()
    photo, scores = cv2.resize(image, (320, 240)), upsample(probabilities, (240, 320))
    noise = np.random.default_rng(1).normal(0, 15, photo.shape)
    photo = np.clip(photo + noise, 0, 255).astype(np.uint8)
    sizes = {"gaussian_sxy": 2.0, "bilateral_sxy": 8.0}
    small, settings = bounded(photo, crf(long_side=80, **sizes))
    assert small.shape == (60, 80, 3)
    assert settings == crf(long_side=None, gaussian_sxy=0.5, bilateral_sxy=2.0)
    assert bounded(photo, crf(long_side=320))[0] is photo
    exact = wsss.dense_crf(photo, scores, **sizes, **CHOSEN, bilateral_srgb=30.0)
    assert exact.shape == (3, 240, 320)

    def difference(times: float) -> float:
        deviations = {name: times * size for name, size in sizes.items()}
        settings = {**deviations, **CHOSEN, "bilateral_srgb": 30.0, "long_side": 80}
        return np.abs(wsss.dense_crf(photo, scores, **settings) - exact).mean()

    assert difference(times=1) < 0.01
    assert difference(times=4) > 0.02  # deviations that did not shrink with the photo


def test_a_deviation_that_is_too_small_is_named_as_it_was_given() -> None:
    photo, scores = np.zeros((10, 2000, 3), np.uint8), np.full((2, 10, 2000), 0.5, np.float32)
    with pytest.raises(ValueError, match=r"bilateral_sxy is 0.02,.* for an image of 2000 x 10"):
        wsss.dense_crf(photo, scores, bilateral_sxy=0.02, long_side=100)
