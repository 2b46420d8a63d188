"""A small convolutional network that learns from tags alone which part of a scene shows what.

A vision transformer this small, trained from scratch for half an hour, hardly learns from one tag
an image; a convolutional network of its size does within minutes. It classifies every cell of a
grid, and the soft maximum over the cells must say the tags (log-sum-exp pooling, Pinheiro and
Collobert, CVPR 2015). Its cells then tell the patches of the CLIP what they show. It is thrown away
afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.demo_clip.model import normalise
from tools.demo_clip.schedule import rate_share
from tools.demo_clip.stream import Crops, Order, Progress, Stream, recolour

_CHANNELS: Final = (24, 56, 128)


@dataclass(frozen=True)
class TeacherRecipe:
    """Settings of its training.

    Attributes:
        steps: optimisation steps.
        batch: images a step.
        size: side of the crops, pixels.
        rate: highest learning rate.
        decay: weight decay.
        warm_up: share of the steps in which the rate rises.
    """

    steps: int = 1000
    batch: int = 64
    size: int = 96
    rate: float = 3e-3
    decay: float = 0.05
    warm_up: float = 0.1


class Teacher(nn.Module):
    """Images ``(batch, 3, height, width)``, normalised, to ``(batch, words, h / 8, w / 8)``."""

    def __init__(self, words: int) -> None:
        super().__init__()
        low, middle, high = _CHANNELS
        self.layers = nn.Sequential(
            _convolution(3, low, 2, kernel=5),
            _convolution(low, low),
            _convolution(low, middle, 2),
            _Residual(middle),
            _convolution(middle, high, 2),
            _Residual(high),
            _Residual(high),
            nn.Conv2d(high, words, 1),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Logits of every word in every cell."""
        logits: Tensor = self.layers(images.contiguous(memory_format=torch.channels_last))
        return logits


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, cells: Tensor) -> Tensor:
        return F.relu(cells + self.norm(self.second(self.first(cells))))


def _convolution(into: int, out: int, stride: int = 1, *, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def pool(logits: Tensor) -> Tensor:
    """Soft maximum over the cells: ``(batch, words, rows, columns)`` to ``(batch, words)``."""
    cells = logits.flatten(2)  # (B, W, N)
    return cells.logsumexp(2) - math.log(cells.shape[2])


def train_teacher(
    stream: Stream, recipe: TeacherRecipe, seed: int, progress: Progress | None = None
) -> Teacher:
    """Train a teacher on the tags and place words of a stream."""
    truth = stream.truth()
    teacher = Teacher(truth.shape[1])
    optimiser = torch.optim.AdamW(teacher.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    generator = torch.Generator().manual_seed(seed)
    order = Order(len(stream.images), generator)
    for step in range(recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * rate_share(step / recipe.steps, recipe.warm_up)
        chosen = order.take(recipe.batch)
        crops = Crops.draw(recipe.batch, generator)
        pixels = crops.of(stream.images[chosen], (recipe.size, recipe.size), "reflection")
        logits = teacher(normalise(recolour(pixels, generator)))
        loss = F.binary_cross_entropy_with_logits(pool(logits), truth[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if progress:
            progress("training the teacher", step + 1, recipe.steps, float(loss.detach()))
    return teacher.eval()


@torch.no_grad()
def patch_targets(teacher: Teacher, stream: Stream, batch: int = 64) -> Tensor:
    """What each cell of each scene shows, among the words that are true of it.

    Returns:
        ``(scenes, words, SIDE / 8, SIDE / 8)`` float16, summing to 1 over the words.
    """
    truth, parts = stream.truth(), []
    for start in range(0, len(stream.images), batch):
        rows = slice(start, start + batch)
        logits = teacher(normalise(stream.images[rows]))
        absent = truth[rows, :, None, None] == 0
        parts.append(logits.masked_fill(absent, -math.inf).softmax(1).half())
    return torch.cat(parts)
