"""From a decoded photograph to the encoder's input: size, resampling, normalisation."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Channels = tuple[float, float, float]

CLIP_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Channels = (0.26862954, 0.26130258, 0.27577711)
# 123.675, 116.28, 103.53 and 58.395, 57.12, 57.375 out of 255
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


def input_size(
    height: int, width: int, patch: tuple[int, int], *, long_side: int | None = None
) -> tuple[int, int]:
    """Size at which an image enters the encoder: the next multiples of the patch.

    The whole image is resized, never padded or cut, so its aspect changes slightly (eq. 1
    of docs/methods/clip-es.md).

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        patch: height and width of a patch, pixels.
        long_side: scale the image so that its longer side has this many pixels first; None keeps
            its own size.

    Returns:
        Height and width, each a positive multiple of the patch.

    Raises:
        ValueError: a size is not positive.
    """
    if min(height, width, *patch) < 1 or (long_side is not None and long_side < 1):
        raise ValueError(
            f"image of {height} x {width} pixels, patch {patch}, long side {long_side}: "
            "every size must be at least 1"
        )
    if long_side is not None:
        # In integers, so that no rounding of a ratio can add a row of patches.
        longest = max(height, width)
        height = max(1, (2 * height * long_side + longest) // (2 * longest))
        width = max(1, (2 * width * long_side + longest) // (2 * longest))
    return math.ceil(height / patch[0]) * patch[0], math.ceil(width / patch[1]) * patch[1]


def resize_image(
    image: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Resample with Pillow's antialiased bicubic filter, as CLIP and CLIP-ES do.

    Args:
        image: RGB, 0 to 255.
        size: new height and width, pixels.
    """
    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def normalize_levels(
    image: UInt8[np.ndarray, "height width 3"], mean: Channels, std: Channels
) -> Float[Tensor, "3 height width"]:
    """`normalize_image` in float64, rounded to float32, as WeCLIP's and ExCEL's releases do it.

    A colour has 256 levels, so that three tables hold all results.
    """
    levels = np.arange(256.0)
    channels = [
        ((levels - 255 * m) / (255 * s)).astype(np.float32)[image[..., channel]]
        for channel, (m, s) in enumerate(zip(mean, std, strict=True))
    ]
    return torch.from_numpy(np.stack(channels))


def normalize_image(
    image: UInt8[np.ndarray, "height width 3"], mean: Channels, std: Channels
) -> Float[Tensor, "3 height width"]:
    """Scale to [0, 1], subtract ``mean`` and divide by ``std``, in float32."""
    # from_numpy needs a writable array; the permutation copies anyway.
    scaled = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
    shape = (3, 1, 1)
    return scaled.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))
