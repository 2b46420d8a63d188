"""The endless stream of drawn scenes that the demo's CLIP learns from, and its crops.

The scenes are those of the stream ``pretrain`` of `wsss.demo.scenes`, which shares none with the
demo's data set. Only pictures, tags and place words are kept; nothing here sees a mask.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wsss.data.datasets.words import DEMO_BACKGROUNDS, DEMO_NAMES
from wsss.demo.scenes import render_scene

SIDE: Final = 112
"""Side in pixels of a cached scene."""
WORDS: Final = (*DEMO_NAMES, *DEMO_BACKGROUNDS)
"""Class names, then place words."""

Progress = Callable[[str, int, int, float], None]
"""Called with the phase, steps done, steps in all, and the latest loss (nan while drawing)."""


@dataclass(frozen=True)
class Stream:
    """Drawn scenes and the words that are true of them."""

    images: Tensor
    """``(scenes, 3, SIDE, SIDE)`` uint8."""
    tags: list[tuple[str, ...]]
    surroundings: list[tuple[str, ...]]

    def truth(self) -> Tensor:
        """1 where a word of `WORDS` is true of a scene: ``(scenes, words)``."""
        true = [{*a, *b} for a, b in zip(self.tags, self.surroundings, strict=True)]
        return torch.tensor([[float(word in words) for word in WORDS] for words in true])


class Order:
    """Endless order of the scenes: every scene once, then all again in another order."""

    def __init__(self, scenes: int, generator: torch.Generator) -> None:
        self._scenes, self._generator = scenes, generator
        self._queue = torch.empty(0, dtype=torch.long)

    def take(self, count: int) -> Tensor:
        """The next ``count`` scenes."""
        while len(self._queue) < count:
            again = torch.randperm(self._scenes, generator=self._generator)
            self._queue = torch.cat([self._queue, again])
        indices, self._queue = self._queue[:count], self._queue[count:]
        return indices


def draw_stream(seed: int, count: int, progress: Progress | None = None) -> Stream:
    """Draw ``count`` scenes on all cores; the same arguments give the same scenes."""
    images = np.empty((count, 3, SIDE, SIDE), dtype=np.uint8)
    tags, surroundings = [], []
    workers = min(os.cpu_count() or 1, 8, max(1, count // 64))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [(seed, index) for index in range(count)]
        for k, (image, names, words) in enumerate(pool.map(_drawn, jobs, chunksize=32)):
            images[k] = image.transpose(2, 0, 1)
            tags.append(names)
            surroundings.append(words)
            if progress and (k % 50 == 49 or k + 1 == count):
                progress("drawing scenes", k + 1, count, math.nan)
    return Stream(torch.from_numpy(images), tags, surroundings)


def _drawn(job: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[str, ...], tuple[str, ...]]:
    scene = render_scene(job[0], "pretrain", job[1])
    small = Image.fromarray(scene.image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(small), scene.tags, scene.surroundings


@dataclass(frozen=True)
class Crops:
    """Which part of each image of a batch is seen: ``(batch, 2, 3)``, see `affine_grid`."""

    affine: Tensor

    @staticmethod
    def draw(batch: int, generator: torch.Generator) -> Crops:
        """Random parts; half of them mirrored.

        They stay large: a tag speaks of the whole image, and a small crop would make it a lie.
        """
        part = _uniform(batch, 0.62, 1.0, generator).sqrt()
        stretch = _uniform(batch, -0.12, 0.12, generator).exp()
        wide, high = (part * stretch).clamp(max=1.0), (part / stretch).clamp(max=1.0)
        across = _uniform(batch, -1.0, 1.0, generator) * (1 - wide)
        down = _uniform(batch, -1.0, 1.0, generator) * (1 - high)
        mirror = torch.where(_uniform(batch, 0.0, 1.0, generator) < 0.5, -1.0, 1.0)
        zero = torch.zeros_like(wide)
        rows = torch.stack([wide * mirror, zero, across, zero, high, down], dim=1)
        return Crops(rows.view(-1, 2, 3))  # (B, 6) -> (B, 2, 3)

    def of(self, images: Tensor, size: tuple[int, int], padding: str = "border") -> Tensor:
        """Sample ``(batch, channels, height, width)`` at ``size``."""
        where = F.affine_grid(self.affine, [len(images), 1, *size], align_corners=False)
        return F.grid_sample(images.float(), where, padding_mode=padding, align_corners=False)


def recolour(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Change saturation, contrast, brightness and white balance mildly; values 0..255."""
    batch = len(pixels)
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = grey + (pixels - grey) * _uniform(batch, 0.7, 1.3, generator, 1, 1, 1)
    pixels = (pixels - 128) * _uniform(batch, 0.8, 1.2, generator, 1, 1, 1) + 128
    pixels = pixels + _uniform(batch, -16.0, 16.0, generator, 1, 1, 1)
    return (pixels * _uniform(batch, 0.93, 1.07, generator, 3, 1, 1)).clamp(0, 255)


def _uniform(
    batch: int, low: float, high: float, generator: torch.Generator, *shape: int
) -> Tensor:
    return low + (high - low) * torch.rand(batch, *shape, generator=generator)
