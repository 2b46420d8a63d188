"""Class probabilities of a trained segmenter: scales, mirroring and sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.retrain.architecture import SMALLEST_SIDE
from wsss.retrain.mm import ConfigDict


class Segmenter:
    """A trained network in evaluation mode.

    Args:
        model: an encoder-decoder of mmsegmentation with its weights.
        device: where it runs.
        average: what is averaged over scales and mirroring.
        window: side of a window that slides over the image, pixels; None for the whole image.
        stride: pixels between windows; None for the window's side.

    Raises:
        ValueError: the window is no multiple of the network's patch.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        average: Literal["probabilities", "logits"] = "probabilities",
        window: int | None = None,
        stride: int | None = None,
    ) -> None:
        self._model: Any = model.to(device).eval()
        self._device = device
        self._of_logits = average == "logits"
        self._slides = window is not None
        self._patch = getattr(self._model.backbone, "patch_size", 1)
        if window is not None:
            if window % self._patch or window < SMALLEST_SIDE:
                raise ValueError(
                    f"predict.window is {window}; expected a multiple of the network's patch "
                    f"({self._patch} pixels), at least {SMALLEST_SIDE}"
                )
            step = stride or window
            self._model.test_cfg = ConfigDict(crop_size=(window, window), stride=(step, step))

    @torch.inference_mode()
    def probabilities(
        self,
        images: UInt8[np.ndarray, "batch height width 3"],
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> Float[Tensor, "batch labels height width"]:
        """Softmax probabilities at image size, averaged over ``scales`` and mirroring (``flip``).

        As mmsegmentation does it: bilinear scaling of the image, logits scaled back to the image,
        softmax, mean; or, where logits are averaged, mean and then softmax.

        Args:
            images: RGB.
            scales: factors on the image's own size.
            flip: also look at the mirrored image, at every scale.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
        raw = pixels.permute(0, 3, 1, 2).float()
        size = (raw.shape[2], raw.shape[3])
        total: Tensor | None = None
        for scale in scales:
            scaled = _resize(raw, (_scaled(size[0], scale), _scaled(size[1], scale)))
            views = torch.cat([scaled, scaled.flip(3)]) if flip else scaled
            found = _resize(self._logits(views), size)
            if not self._of_logits:
                found = found.softmax(dim=1)
            if flip:
                straight, mirrored = found.chunk(2)
                found = (straight + mirrored.flip(3)) / 2
            total = found if total is None else total + found
        assert total is not None, "at least one scale"
        mean = total / len(scales)
        return mean.softmax(dim=1) if self._of_logits else mean

    def _logits(
        self, raw: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels height width"]:
        """Logits at the size of the input, RGB in [0, 255]."""
        preprocessor = self._model.data_preprocessor
        inputs = (raw - preprocessor.mean) / preprocessor.std
        height, width = inputs.shape[2:]
        below, right = (self._missing(side) for side in (height, width))
        inputs = F.pad(inputs, (0, right, 0, below))  # 0 is the mean colour, as in training
        shape = tuple(inputs.shape[2:])
        found = self._model.slide_inference if self._slides else self._model.encode_decode
        logits: Tensor = found(inputs, [{"img_shape": shape} for _ in inputs])
        return logits[:, :, :height, :width]

    def _missing(self, side: int) -> int:
        """Pixels to the smallest side that the network takes, or to the next whole patch."""
        smallest = max(side, SMALLEST_SIDE)
        return smallest + -smallest % self._patch - side


def _scaled(side: int, scale: float) -> int:
    return max(1, int(side * scale + 0.5))


def _resize(
    images: Float[Tensor, "batch channels _ _"], size: tuple[int, int]
) -> Float[Tensor, "batch channels _ _"]:
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
