"""Mean field of the dense CRF by sparse products, for batches of images, on any device of torch.

Eq. 1-6 of docs/methods/crf.md: what ``pydensecrf`` computes, for several images at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from wsss.config.labels import CrfConfig
from wsss.labels.permutohedral import Lattice, build_lattice, concatenate

_FEW = 16  # labels up to which a softmax is faster in planes


@torch.inference_mode()
def batch_posterior(
    unary: Sequence[Float32[Tensor, "labels h w"]],
    images: Sequence[UInt8[Tensor, "h w 3"]],
    config: CrfConfig,
) -> list[Float32[Tensor, "labels h w"]]:
    """The mean-field posterior of each image.

    The lattices are built image by image. The iterations then run over all images and labels at
    once, and nothing in them waits for the device.

    Args:
        unary: energies of the labels of each image; sizes and numbers of labels may differ.
        images: as the appearance kernel sees them, on the device of the energies.
        config: kernels and iterations.

    Returns:
        On the device of the energies.
    """
    labels = max(len(energy) for energy in unary)
    start = torch.cat([_rows(energy, labels) for energy in unary])
    kernels = _kernels([image for image in images], config)
    posterior = softmax_rows(-start)
    for _ in range(config.iterations):
        logits = -start
        for kernel in kernels:
            logits += kernel.filter(posterior)
        posterior = softmax_rows(logits)
    parts = posterior.split([energy[0].numel() for energy in unary])
    return [
        part[:, : len(energy)].t().reshape(energy.shape)
        for part, energy in zip(parts, unary, strict=True)
    ]


def _kernels(images: Sequence[UInt8[Tensor, "h w 3"]], config: CrfConfig) -> list[Lattice]:
    """Smoothness and appearance, without those of weight 0."""
    kernels = []
    if config.gaussian_compat:
        by_size: dict[torch.Size, Lattice] = {}
        for image in images:
            if image.shape not in by_size:
                lattice = build_lattice(_positions(image, config.gaussian_sxy))
                by_size[image.shape] = lattice.normalised(config.gaussian_compat)
        kernels.append(concatenate([by_size[image.shape] for image in images]))
    if config.bilateral_compat:
        appearance = []
        for image in images:
            colours = image.flatten(0, 1).t().float() / config.bilateral_srgb
            features = torch.cat([_positions(image, config.bilateral_sxy), colours])
            appearance.append(build_lattice(features).normalised(config.bilateral_compat))
        kernels.append(concatenate(appearance))
    return kernels


def _positions(image: UInt8[Tensor, "h w 3"], deviation: float) -> Float32[Tensor, "2 points"]:
    """Column and row of each pixel, in standard deviations."""
    height, width, _ = image.shape
    down = torch.arange(height, dtype=torch.float32, device=image.device)
    across = torch.arange(width, dtype=torch.float32, device=image.device)
    grid = torch.meshgrid(across / deviation, down / deviation, indexing="xy")
    return torch.stack(grid).flatten(1)


def _rows(energy: Float32[Tensor, "labels h w"], labels: int) -> Float32[Tensor, "points all"]:
    """Energies with the labels last; those that an image lacks are infinite."""
    missing = labels - len(energy)
    rows = torch.nn.functional.pad(energy.flatten(1), (0, 0, 0, missing), value=torch.inf)
    return rows.t().contiguous()


def softmax_rows(logits: Float32[Tensor, "points labels"]) -> Float32[Tensor, "points labels"]:
    """The softmax of each row."""
    if logits.shape[1] >= _FEW or logits.device.type != "cpu":
        return logits.softmax(1)
    return logits.t().softmax(0).t().contiguous()
