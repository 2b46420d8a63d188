"""Several scales and mirroring: from photos to the logits of a trained refiner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from wsss.cams.maps import resize_maps
from wsss.clip.images import input_size, resize_image
from wsss.clip.input import EncoderInput
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.model import Config
from wsss.data.manifest import Sample

Found = TypeVar("Found")
Subject = TypeVar("Subject")
Photo = UInt8[np.ndarray, "height width 3"]
Network = Callable[[Tensor], Tensor]
"""Images [B, 3, H, W], normalised, sides whole patches, to logits [B, labels, h, w] on the grid."""


class Views:
    """Logits of a photo, averaged over scales and mirroring (eq. 23 of docs/methods/weclip.md).

    Args:
        config: clip.long_side and infer.
        inputs: the encoder's patch and normalisation.
        network: what gives logits.
    """

    def __init__(self, config: Config, inputs: EncoderInput, network: Network) -> None:
        self._inputs, self._network, self._settings = inputs, network, config.infer
        self._long_side = config.infer.long_side or config.clip.long_side

    @torch.inference_mode()
    def grid_logits(
        self, photo: Photo
    ) -> tuple[Float[Tensor, "labels h w"], Float[Tensor, "labels h w"]]:
        """Logits at scale 1, and their mean over all scales and mirroring, on scale 1's grid."""
        base = self._both(self.pixels(photo, 1.0))
        total = torch.zeros_like(base[0])
        for scale in self._settings.scales:
            both = base if scale == 1.0 else self._both(self.pixels(photo, scale))
            straight, mirrored = both
            if scale == 1.0 and not self._settings.mirror_first:
                mirrored = straight.flip(-1)
            mean = (straight + mirrored.flip(-1)) / 2
            total += resize_maps(mean, (base.shape[-2], base.shape[-1]))
        return base[0], total / len(self._settings.scales)

    @torch.inference_mode()
    def probabilities(self, photo: Photo) -> dict[str, Float[Tensor, "labels height width"]]:
        """Softmax at the photo's size: ``single`` (scale 1 alone) and ``multi`` (all)."""
        single, multi = self.grid_logits(photo)
        size = (photo.shape[0], photo.shape[1])
        return {
            name: resize_maps(logits, size).softmax(0)
            for name, logits in (("single", single), ("multi", multi))
        }

    def pixels(self, photo: Photo, scale: float) -> Float[Tensor, "3 rows columns"]:
        """The network's input: whole patches.

        ``aligned`` resizes the photo to the next multiples of the patch. ``floored`` is what the
        released code amounts to: the photo is resized to whole pixels, and the encoder's first
        convolution passes over what is left of a patch, while the logits are stretched to the whole
        image afterwards (eq. 23 of docs/methods/weclip.md).
        """
        patch = self._inputs.encoder.patch
        height, width = self._base(photo)
        if self._settings.grid == "aligned":
            size = input_size(_scaled(height, scale), _scaled(width, scale), patch)
            return self._inputs.normalize(resize_image(photo, size))
        height, width = max(height, patch[0]), max(width, patch[1])
        resized = Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR)
        pixels = self._inputs.normalize(np.asarray(resized))
        if scale != 1.0:
            size = (max(int(height * scale), patch[0]), max(int(width * scale), patch[1]))
            pixels = resize_maps(pixels, size)
        rows, columns = (s // p * p for s, p in zip(pixels.shape[1:], patch, strict=True))
        return pixels[:, :rows, :columns]

    def _base(self, photo: Photo) -> tuple[int, int]:
        if self._inputs.square is not None:
            return self._inputs.square, self._inputs.square
        height, width = photo.shape[0], photo.shape[1]
        if self._long_side is None:
            return height, width
        factor = self._long_side / max(height, width)
        whole = int if self._settings.grid == "floored" else round
        return max(1, whole(height * factor)), max(1, whole(width * factor))

    def _both(self, pixels: Float[Tensor, "3 h w"]) -> Float[Tensor, "2 labels rows columns"]:
        """Logits of the image and of its mirror image."""
        return self._network(torch.stack([pixels, pixels.flip(-1)]).to(self._inputs.encoder.device))


def on_photos(
    inputs: EncoderInput,
    subjects: Iterable[tuple[Sample, Subject]],
    function: Callable[[Photo, Subject], Found],
    *,
    in_turn: bool = False,
) -> Iterator[Found]:
    """Apply a function to photos and what belongs to them, in their order.

    On a CPU one photo on one thread, so that a result depends on nothing else; on a GPU photos are
    decoded ahead, and looked at one by one.

    Args:
        inputs: reads photos.
        subjects: sample, and what the function is given beside the photo.
        function: of photo and subject.
        in_turn: one at a time in any case (it draws random numbers).
    """

    def load(task: tuple[Sample, Subject]) -> tuple[Photo, Subject]:
        return inputs.photo(task[0]), task[1]

    if inputs.encoder.device.type != "cpu" or in_turn:
        for photo, subject in ordered_map(load, subjects, threads=2):
            yield function(photo, subject)
        return
    with one_thread_each() as threads:
        yield from ordered_map(lambda task: function(*load(task)), subjects, threads=threads)


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))
