"""Dense CRF (Krähenbühl and Koltun, 2011) on the labels that an image can have.

Two backends compute the same: ``pydensecrf``, and sparse products of torch
(`wsss.labels.lattice_crf`). The first holds the interpreter lock while it runs, and the second runs
on one thread here; `wsss.compute.pool` distributes images over processes. Torch is imported for its
backend alone, so that the others start quickly.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from wsss.config.labels import CrfConfig
from wsss.errors import WsssError

FLOOR = 1e-5
"""Least probability, so that its logarithm is finite."""
_LARGEST_COORDINATE = 2**15 - 1  # of a point of the lattice: pydensecrf keeps 16 bits
_MEAN_BGR = (104.008, 116.669, 122.675)


ALONE = 0.26
"""Pixels. The lattice reaches 4 deviations. Up to this one a neighbour has a weight below 3e-4, so
the smoothness kernel is the identity. Photos from 12 megapixels on are such a case (`bounded`)."""


class MissingBackendError(WsssError, ImportError):
    """The backend that the configuration names is not installed."""


def dense_crf(
    probabilities: Float[np.ndarray, "labels h w"],
    image: UInt8[np.ndarray, "h w 3"],
    config: CrfConfig,
) -> Float32[np.ndarray, "labels h w"]:
    """The mean-field posterior of a fully connected CRF with a smoothness and an appearance kernel.

    Args:
        probabilities: of the labels that can occur, background first; they need not sum to one.
            Values below 1e-5 and above 1 are clipped.
        image: RGB, of the same size.
        config: kernels, iterations, and the two departures of the published code; ``long_side``
            is left to `bounded`.

    Returns:
        Posterior, sums to one over the given labels.

    Raises:
        ValueError: NaN in the probabilities, or a deviation is too small for an image of this size.
        MissingBackendError: the backend is pydensecrf, which is not installed.
    """
    check_probabilities(probabilities)
    return posterior(unary_energy(probabilities, config), appearance_image(image, config), config)


def check_probabilities(probabilities: Float[np.ndarray, "labels h w"]) -> None:
    """Refuse NaN, which the CRF would spread over the image.

    Raises:
        ValueError: there is one.
    """
    if np.isnan(probabilities).any():
        raise ValueError("the CRF was given probabilities that are NaN; rerun the stage before")


def bounded(
    image: UInt8[np.ndarray, "h w 3"], config: CrfConfig
) -> tuple[UInt8[np.ndarray, "rows columns 3"], CrfConfig]:
    """An image that is no longer than ``config.long_side``, and the settings for its size.

    The spatial deviations shrink with the image, so each kernel covers the same part of it.

    Args:
        image: RGB. Where it is small enough, it and the settings are returned as they are.
        config: of the photo at its own size.

    Raises:
        ValueError: a deviation is too small for an image of this size.
    """
    height, width = image.shape[:2]
    share = bounded_share(height, width, config)
    if share == 1:
        return image, config
    check_deviations(height, width, config)
    deviations = {name: getattr(config, name) * share for name in ("gaussian_sxy", "bilateral_sxy")}
    small = bounded_image(image, config)
    return small, config.model_copy(update={"long_side": None, **deviations})


def bounded_image(
    image: UInt8[np.ndarray, "height width 3"], config: CrfConfig
) -> UInt8[np.ndarray, "rows columns 3"]:
    """The image alone, for steps that have no deviations."""
    height, width = image.shape[:2]
    share = bounded_share(height, width, config)
    if share == 1:
        return image
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def bounded_share(height: int, width: int, config: CrfConfig) -> float:
    """The share of its sides to which `bounded` scales an image."""
    return 1.0 if config.long_side is None else min(1.0, config.long_side / max(height, width))


def posterior(
    unary: Float32[np.ndarray, "labels h w"], image: UInt8[np.ndarray, "h w 3"], config: CrfConfig
) -> Float32[np.ndarray, "labels h w"]:
    """The mean-field posterior, from energies and the image as the appearance kernel sees it.

    Raises:
        ValueError: a deviation is too small for an image of this size.
        MissingBackendError: the backend is pydensecrf, which is not installed.
    """
    labels, height, width = unary.shape
    check_deviations(height, width, config)
    if labels == 1:
        return np.ones_like(unary)
    if config.backend == "torch":
        from wsss.labels.lattice_crf import one_posterior

        return one_posterior(unary, image, config)
    return _pydensecrf_posterior(unary, image, config)


def _pydensecrf_posterior(
    unary: Float32[np.ndarray, "labels h w"], image: UInt8[np.ndarray, "h w 3"], config: CrfConfig
) -> Float32[np.ndarray, "labels h w"]:
    if importlib.util.find_spec("pydensecrf") is None:
        raise MissingBackendError(
            "not installed: pydensecrf2, for the CRF with backend: pydensecrf; "
            "pip install 'wsss[crf]' (Python 3.11 or 3.12, and a C++ compiler), or set "
            "masks.crf.backend to torch, which needs neither"
        )
    import pydensecrf.densecrf as densecrf

    labels, height, width = unary.shape
    field = densecrf.DenseCRF2D(width, height, labels)
    energy = np.require(unary, None, ["C", "W"]).reshape(labels, -1)  # (labels, h w)
    field.setUnaryEnergy(energy)
    is_alone = config.gaussian_sxy <= ALONE
    if not is_alone:
        field.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    field.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.require(image, None, ["C", "W"]),
        compat=config.bilateral_compat,
    )
    if not is_alone:
        return np.array(field.inference(config.iterations), np.float32).reshape(unary.shape)
    # The identity as kernel asks for no lattice: a pixel speaks for its own label.
    posteriors, *buffers = field.startInference()
    for _ in range(config.iterations):
        field.setUnaryEnergy(energy - np.float32(config.gaussian_compat) * np.array(posteriors))
        field.stepInference(posteriors, *buffers)
    return np.array(posteriors, np.float32).reshape(unary.shape)


def unary_energy(
    probabilities: Float[np.ndarray, "labels h w"], config: CrfConfig
) -> Float32[np.ndarray, "labels h w"]:
    """Minus the logarithm of the probabilities, clipped to 1e-5 … 1.

    With ``unary: float16`` it is evaluated in that type, as CLIP-ES does: up to 5e-3 off.
    """
    energy = probabilities.astype(config.unary)
    np.clip(energy, energy.dtype.type(FLOOR), energy.dtype.type(1), out=energy)
    np.log(energy, out=energy)
    np.negative(energy, out=energy)
    return energy.astype(np.float32, copy=False)


def appearance_image(
    image: UInt8[np.ndarray, "h w 3"], config: CrfConfig
) -> UInt8[np.ndarray, "h w 3"]:
    """The image that the appearance kernel compares.

    Args:
        image: RGB.
        config: ``image: raw`` gives it as it is. ``wrapped`` gives what CLIP-ES computes on x86:
            BGR minus a mean, cast to uint8, where negative values come out large. In C that cast is
            undefined; here it is truncation toward zero and then modulo 256, on every machine.
    """
    if config.image == "raw":
        return image
    table = np.arange(256)[:, None] - np.array(_MEAN_BGR)  # (256, 3): every level of every channel
    wrapped = (np.trunc(table).astype(np.int64) % 256).astype(np.uint8)
    return wrapped[image[:, :, ::-1], np.arange(3)]


def check_deviations(height: int, width: int, config: CrfConfig) -> None:
    """Refuse what the lattice cannot hold: far points would share a cell, or it would crash.

    Raises:
        ValueError: a deviation is too small for an image of this size.
    """
    position = (width - 1, height - 1)
    colour = (255 / config.bilateral_srgb,) * 3
    for kernel, features in (
        ("gaussian_sxy", [level / config.gaussian_sxy for level in position]),
        ("bilateral_sxy", [*(level / config.bilateral_sxy for level in position), *colour]),
    ):
        if (reach := _lattice_reach(features)) > _LARGEST_COORDINATE:
            both = " or bilateral_srgb" if kernel == "bilateral_sxy" else ""
            raise ValueError(
                f"the CRF's {kernel} is {getattr(config, kernel)}, which is too small for an image "
                f"of {width} x {height} pixels: its lattice would reach to {reach:.0f}, over "
                f"{_LARGEST_COORDINATE}; raise {kernel}{both}, or make the image smaller"
            )


def _lattice_reach(features: Sequence[float]) -> float:
    """The largest coordinate of a point and its neighbours on the permutohedral lattice.

    Features f_0 … f_(d-1) are scaled to s_i = (d + 1) sqrt(2/3) f_i / sqrt((i + 1) (i + 2)) and
    embedded as sum s, and -(j + 1) s_j + sum of the later s (Adams, Baek and Davis, Fast
    High-Dimensional Filtering Using the Permutohedral Lattice, 2010, section 3).

    Args:
        features: the largest value of each; the smallest is 0.
    """
    sides = len(features) + 1
    scaled = [
        sides * math.sqrt(2 / 3 / ((i + 1) * (i + 2))) * feature
        for i, feature in enumerate(features)
    ]
    largest = max(sum(scaled), *((i + 1) * value for i, value in enumerate(scaled)))
    return largest + 3 * sides  # rounding to a cell, and the neighbours that the blur visits
