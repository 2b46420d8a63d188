"""Mean field of the dense CRF by sparse products, for batches of images, on any device of torch.

Eq. 1 and 2 of docs/methods/crf.md: what ``pydensecrf`` computes, for several images at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from wsss.compute.threads import fixed_threads
from wsss.config.labels import CrfConfig
from wsss.labels.crf import ALONE
from wsss.labels.permutohedral import Lattice, build_lattice, concatenate

_WIDEST = 32  # labels that are filtered at once; more of them leave the caches, and the allocator's
_FEW = 16  # labels up to which a softmax is faster in planes
_CACHED_PIXELS = 2**20  # of an image whose smoothness kernel is kept: 100 MB at most


def one_posterior(
    unary: Float32[np.ndarray, "labels h w"], image: UInt8[np.ndarray, "h w 3"], config: CrfConfig
) -> Float32[np.ndarray, "labels h w"]:
    """`batch_posterior` of one image on one thread of the CPU: processes run in parallel."""
    energy, photo = (torch.from_numpy(np.require(x, None, ["C", "W"])) for x in (unary, image))
    with fixed_threads(1):
        (posterior,) = batch_posterior([energy], [photo], config)
    return posterior.numpy()


@torch.no_grad()
def batch_posterior(
    unary: Sequence[Float32[Tensor, "_ _ _"]],
    images: Sequence[UInt8[Tensor, "_ _ 3"]],
    config: CrfConfig,
) -> list[Float32[Tensor, "_ _ _"]]:
    """The mean-field posterior of each image.

    The lattices are built image by image. The iterations then run over all images and labels at
    once, and nothing in them waits for the device.

    Args:
        unary: energies [labels, h, w] of each image; sizes and numbers of labels may differ.
        images: [h, w, 3], as the appearance kernel sees them, on the device of the energies.

    Returns:
        On the device of the energies; sums to one over the labels of an image.
    """
    most = max(map(len, unary))
    energy = torch.cat([_as_rows(labels, most) for labels in unary])
    kernels = _kernels(images, config)
    alone = config.gaussian_compat if config.gaussian_sxy <= ALONE else 0.0
    logits = -energy
    posterior = _softmax(logits)
    for _ in range(config.iterations):
        torch.neg(energy, out=logits)
        columns = posterior.split(_WIDEST, 1), logits.split(_WIDEST, 1)
        for values, target in zip(*columns, strict=True):
            values = values.contiguous()
            target.add_(values, alpha=alone)
            for kernel in kernels:
                target += kernel.filter(values)
        posterior = _softmax(logits)
    rows = posterior.split([labels[0].numel() for labels in unary])
    return [
        row[:, : len(labels)].t().reshape(labels.shape)
        for row, labels in zip(rows, unary, strict=True)
    ]


def _kernels(images: Sequence[UInt8[Tensor, "_ _ 3"]], config: CrfConfig) -> list[Lattice]:
    """Smoothness and appearance of all images, where they have a weight and reach a neighbour."""
    kernels = []
    deviation, weight = config.gaussian_sxy, config.gaussian_compat
    if weight and deviation > ALONE:
        kernels.append(concatenate([_smoothness(x, deviation, weight) for x in images]))
    if weight := config.bilateral_compat:
        kernels.append(concatenate([_appearance(x, config) for x in images]))
    return kernels


def _smoothness(image: UInt8[Tensor, "h w 3"], deviation: float, weight: float) -> Lattice:
    """The kernel of an image's size; the last ones are kept, since many images have one size."""
    height, width, _ = image.shape
    small = height * width <= _CACHED_PIXELS
    build: Callable[..., Lattice] = _of_size if small else _of_size.__wrapped__
    return build(height, width, deviation, weight, image.device)


@functools.lru_cache(maxsize=2)
def _of_size(
    height: int, width: int, deviation: float, weight: float, device: torch.device
) -> Lattice:
    return build_lattice(_positions(height, width, deviation, device)).normalised(weight)


def clear_cache() -> None:
    """Forget the kernels of sizes, which hold 25 MB for 375 x 500 pixels each."""
    _of_size.cache_clear()


def _appearance(image: UInt8[Tensor, "h w 3"], config: CrfConfig) -> Lattice:
    height, width, _ = image.shape
    positions = _positions(height, width, config.bilateral_sxy, image.device)
    colours = image.flatten(0, 1).t().float() / config.bilateral_srgb
    return build_lattice(torch.cat([positions, colours])).normalised(config.bilateral_compat)


def _positions(
    height: int, width: int, deviation: float, device: torch.device
) -> Float32[Tensor, "2 points"]:
    """Column and row of each pixel, in standard deviations."""
    down, across = (
        torch.arange(size, dtype=torch.float32, device=device) / deviation
        for size in (height, width)
    )
    return torch.stack(torch.meshgrid(across, down, indexing="xy")).flatten(1)


def _as_rows(
    energy: Float32[Tensor, "labels h w"], labels: int
) -> Float32[Tensor, "points all_labels"]:
    """Energies with the labels last; those that an image lacks are infinite."""
    planes = F.pad(energy.flatten(1), (0, 0, 0, labels - len(energy)), value=torch.inf)
    return planes.t().contiguous()


def _softmax(logits: Float32[Tensor, "points labels"]) -> Float32[Tensor, "points labels"]:
    """Over the labels of each point."""
    if logits.shape[1] < _FEW and logits.device.type == "cpu":
        return logits.t().softmax(0).t().contiguous()
    return logits.softmax(1)
