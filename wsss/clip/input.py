"""The configured encoder, and photographs in the form that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wsss.clip.downloads import download_folder
from wsss.clip.encoder import ClipEncoder
from wsss.clip.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Channels,
    input_size,
    normalize_image,
    normalize_levels,
    resize_image,
)
from wsss.clip.load import LoadedClip, load_clip
from wsss.compute.device import pick_device
from wsss.compute.packed_rows import to_device
from wsss.config.clip import ClipConfig
from wsss.config.paths import expand_path
from wsss.data.images.read import read_image
from wsss.data.manifest import Sample

# Bytes that the attention of all heads of one block and image may take, in float32. An image enters
# the encoder whole, so this grows with the fourth power of its side.
_MAX_ATTENTION_BYTES = 2 << 30


class EncoderInput:
    """Loads an encoder and prepares photographs for it.

    Args:
        config: the encoder and the size, shape and normalisation of its input.
        max_pixels: largest photograph that `photo` reads.
        device: of the encoder; ``auto`` picks one.
        clip: a model loaded before; None loads the one that ``config`` names.

    Attributes:
        long_side: of photographs that enter the encoder, pixels; None: as they are.
        square: side of the square into which every photograph is squeezed, pixels; None: they keep
            their shape.

    Raises:
        ClipLoadError: the model cannot be built or its weights do not fit.
    """

    def __init__(
        self,
        config: ClipConfig,
        cache: Path | None = None,
        *,
        max_pixels: int | None = None,
        device: str = "auto",
        clip: LoadedClip | None = None,
    ) -> None:
        self.clip = clip or configured_clip(config.model, config.pretrained, cache)
        self.encoder = ClipEncoder(
            self.clip.model.get_submodule("visual"),
            logit_scale=config.logit_scale or self.clip.logit_scale,
            precision=config.precision,
            rounding=config.position_rounding,
            device=pick_device(device),
        )
        self._imagenet = config.normalization == "imagenet"
        self._mean = IMAGENET_MEAN if self._imagenet else self.clip.mean
        self._std = IMAGENET_STD if self._imagenet else self.clip.std
        self._max_pixels, self.long_side = max_pixels, config.long_side
        self.square = None if config.keep_ratio else config.input_size

    def size(self, sample: Sample) -> tuple[int, int]:
        """Height and width at which an image enters the encoder, pixels."""
        return self._size(sample.height, sample.width)

    def grid(self, sample: Sample) -> tuple[int, int]:
        """Rows and columns of patches of an image."""
        height, width = self.size(sample)
        return height // self.encoder.patch[0], width // self.encoder.patch[1]

    def pixels(self, sample: Sample) -> Float[Tensor, "3 height width"]:
        """Read, resize and normalise a photograph.

        Raises:
            ImageError: it cannot be read.
        """
        return self.normalize(resize_image(self.photo(sample), self.size(sample)))

    def views(
        self, sample: Sample, scales: Sequence[float]
    ) -> list[Float[Tensor, "3 height width"]]:
        """`pixels` at several scales, each made from the photograph.

        The sides follow from those at scale 1, so that images of equal `size` have views of equal
        size.

        Raises:
            ImageError: it cannot be read.
        """
        photo, size = self.photo(sample), self.size(sample)
        sizes = [self._at_scale(size, scale) for scale in scales]
        return [self.normalize(resize_image(photo, size)) for size in sizes]

    def photo(self, sample: Sample) -> UInt8[np.ndarray, "height width 3"]:
        """Read a photograph.

        Raises:
            ImageError: it cannot be read.
        """
        return read_image(sample.path, digest=sample.digest, max_pixels=self._max_pixels)

    def prepare(
        self, photo: UInt8[np.ndarray, "height width 3"]
    ) -> Float[Tensor, "3 rows columns"]:
        """Resize and normalise a photograph; RGB in 0 … 255 of any size."""
        return self.normalize(resize_image(photo, self._size(*photo.shape[:2])))

    def normalize(
        self, photo: UInt8[np.ndarray, "height width 3"]
    ) -> Float[Tensor, "3 height width"]:
        """Pixels as the encoder takes them, without resizing."""
        if self._imagenet:
            return normalize_levels(photo, self._mean, self._std)
        return normalize_image(photo, self._mean, self._std)

    def colours(
        self, pixels: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[np.ndarray, "batch rows columns 3"]:
        """Undo `normalize`: RGB in 0 … 255, not rounded."""
        mean, std = ((255 * np.array(c)).astype(np.float32) for c in (self._mean, self._std))
        # (B, 3, h, w) -> (B, h, w, 3)
        levels: np.ndarray = pixels.permute(0, 2, 3, 1).cpu().numpy() * std + mean
        return levels.clip(0, 255)

    def truncated(
        self, pixels: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch 3 rows columns"]:
        """Undo `normalize` as the released code of ExCEL does: RGB in 0 … 1, truncated to 8 bits.

        It undoes that in float32 and cuts off what is behind the point, so that some levels come
        out one lower.

        Args:
            pixels: normalised, of 8-bit colours, where the encoder is.
        """
        mean, std = self._levels
        return (pixels * std + mean).trunc() / 255

    @cached_property
    def _levels(self) -> Float[Tensor, "2 1 3 1 1"]:
        """Mean and deviation of the colours in 0 … 255, where the encoder is."""
        levels = 255 * torch.tensor([self._mean, self._std], dtype=torch.float64)
        return to_device(levels.float().view(2, 1, 3, 1, 1), self.encoder.device)

    @property
    def normalization(self) -> tuple[Channels, Channels]:
        """Mean and standard deviation of `normalize`."""
        return self._mean, self._std

    def bytes_per_image(self, height: int, width: int) -> int:
        """About the memory that an image of this input size takes in the encoder, for planning.

        Three attention maps of all heads (scores, softmax, gradient), the mean map of each block,
        and twenty copies of the tokens.
        """
        encoder = self.encoder
        tokens = 1 + height // encoder.patch[0] * (width // encoder.patch[1])
        maps = 3 * encoder.blocks[-1].heads + encoder.depth
        return 4 * (maps * tokens**2 + 20 * tokens * encoder.width)

    def check_sizes(self, samples: Sequence[Sample], scale: float = 1.0) -> None:
        """Refuse images whose attention would not fit into memory, before the work starts.

        Args:
            scale: the largest at which they enter the encoder.

        Raises:
            ValueError: names how many there are, the largest, and the setting that helps.
        """

        def tokens(sample: Sample) -> int:
            height, width = self._at_scale(self.size(sample), scale)
            return 1 + height // self.encoder.patch[0] * (width // self.encoder.patch[1])

        limit = int((_MAX_ATTENTION_BYTES / (4 * self.encoder.blocks[-1].heads)) ** 0.5)
        too_large = [sample for sample in samples if tokens(sample) > limit]
        if too_large:
            worst = max(too_large, key=tokens)
            raise ValueError(
                f"{len(too_large)} of {len(samples)} images are too large for the encoder, which "
                f"attends to all patches at once: {worst.id!r} of {worst.width} x {worst.height} "
                f"pixels has {tokens(worst)} tokens, at most {limit} fit; set clip.long_side, "
                f"e.g. to 512{'' if scale <= 1 else ', or take smaller scales'}"
            )

    def _at_scale(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        height, width = (max(1, round(side * scale)) for side in size)
        return input_size(height, width, self.encoder.patch)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.square is not None:
            return input_size(self.square, self.square, self.encoder.patch)
        return input_size(height, width, self.encoder.patch, long_side=self.long_side)


def configured_clip(model: str, pretrained: str, cache: Path | None) -> LoadedClip:
    """The CLIP of the section `clip`.

    Args:
        model: ``clip.model``.
        pretrained: ``clip.pretrained``.
        cache: folder for downloaded weights; None: open_clip's own.

    Raises:
        ClipLoadError: the model cannot be built or its weights do not fit.
    """
    folder = download_folder(cache)
    return load_clip(_resolve_file(model), _resolve_file(pretrained), cache_dir=folder)


def _resolve_file(text: str) -> str:
    """The path that ``text`` names if it is a file, else ``text``: a model's name or a tag."""
    path = expand_path(text)
    return str(path) if path.is_file() or path.suffix in {".json", ".safetensors", ".pt"} else text
