"""What the CRF of WeakCLIP's boundary loss is given: its kernels and its image.

Eq. 19 of docs/methods/weakclip.md.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from scipy import ndimage
from torch import Tensor

from wsss.clip.input import EncoderInput
from wsss.config.labels import CrfConfig
from wsss.refine.weakclip.options import BoundaryConfig


def boundary_crf(settings: BoundaryConfig, cell: int) -> CrfConfig:
    """The CRF on the grid of the loss.

    Args:
        cell: side of a cell of that grid, pixels.
    """
    unit = cell if settings.sigma_unit == "pixels" else 1
    return CrfConfig(
        backend=settings.backend,
        iterations=settings.iterations,
        gaussian_sxy=settings.gaussian_sxy / unit,
        gaussian_compat=settings.gaussian_compat,
        bilateral_sxy=settings.bilateral_sxy / unit,
        bilateral_srgb=settings.bilateral_srgb,
        bilateral_compat=settings.bilateral_compat,
        image="raw",
        unary="float32",
    )


def grid_photos(
    images: Float[Tensor, "batch 3 height width"],
    size: tuple[int, int],
    inputs: EncoderInput,
    settings: BoundaryConfig,
) -> list[UInt8[np.ndarray, "rows columns 3"]]:
    """Normalised crops as small RGB photos.

    Args:
        images: see `EncoderInput.normalize`.
        size: rows and columns wanted.
        inputs: undoes the normalisation.
        settings: ``averaged`` over each cell, or ``sampled`` as released: linearly on a grid that
            runs from corner pixel to corner pixel, then cut to whole grey levels.
    """
    if settings.image == "averaged":
        small = F.interpolate(images, size, mode="area")
        return [np.rint(photo).astype(np.uint8) for photo in inputs.colours(small)]
    factors = (1, size[0] / images.shape[2], size[1] / images.shape[3])
    zoomed = [ndimage.zoom(image.cpu().numpy(), factors, order=1) for image in images]
    return [photo.astype(np.uint8) for photo in inputs.colours(torch.from_numpy(np.stack(zoomed)))]
