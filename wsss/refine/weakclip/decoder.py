"""The text-guided decoder: a feature pyramid and Semantic-FPN's head.

Eq. 14-16 of docs/methods/weakclip.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss.refine.weakclip.adapter import Level

_LEVELS = 4


class TextGuidedDecoder(nn.Module):
    """Logits at the finest level, from the pyramid with the match map appended to every level.

    Args:
        labels: classes and the background.
        channels: inside.
        dropout: fraction of channels zeroed before the classifier.
    """

    def __init__(
        self, width: int, labels: int, channels: int = 256, *, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.neck = FeaturePyramid(width, labels, channels)
        self.head = SemanticHead(channels, labels, dropout)

    def forward(
        self, levels: Sequence[Level], match: Float[Tensor, "batch labels rows columns"]
    ) -> Float[Tensor, "batch labels height across"]:
        """Logits P at the size of the finest level.

        Args:
            levels: f'_1 … f'_4, finest first.
            match: lambda', in -1 … 1.
        """
        return self.head(self.neck(levels, match))


class FeaturePyramid(nn.Module):
    """FPN (Lin et al., CVPR 2017): coarse levels are added to the finer ones.

    Args:
        labels: channels of the match map, which is appended to every level.
        channels: channels that come out.
    """

    def __init__(self, width: int, labels: int, channels: int) -> None:
        super().__init__()
        self._width = width
        self.lateral = nn.ModuleList(
            _start(nn.Conv2d(width + labels, channels, 1)) for _ in range(_LEVELS)
        )
        self.smooth = nn.ModuleList(
            _start(nn.Conv2d(channels, channels, 3, padding=1)) for _ in range(_LEVELS)
        )

    def forward(
        self, levels: Sequence[Level], match: Float[Tensor, "batch labels rows columns"]
    ) -> list[Float[Tensor, "batch channels _ _"]]:
        """Maps of the levels' sizes, finest first."""
        sums = [
            self._lateral(level, match, lateral)
            for level, lateral in zip(levels, self.lateral.children(), strict=True)
        ]
        for finer in range(_LEVELS - 2, -1, -1):
            above = F.interpolate(sums[finer + 1], sums[finer].shape[2:], mode="nearest")
            sums[finer] = sums[finer] + above
        return [smooth(level) for smooth, level in zip(self.smooth, sums, strict=True)]

    def _lateral(
        self,
        level: Level,
        match: Float[Tensor, "batch labels rows columns"],
        lateral: nn.Module,
    ) -> Float[Tensor, "batch channels height across"]:
        """The lateral convolution of level and match map, without concatenating them."""
        assert isinstance(lateral, nn.Conv2d)
        assert lateral.bias is not None
        weight = lateral.weight.flatten(1)  # (out, D + K, 1, 1) -> (out, D + K)
        resized = F.interpolate(match, level.size, mode="bilinear", align_corners=True)
        guide = F.conv2d(resized, weight[:, self._width :, None, None])
        return level.convolved(weight[:, : self._width], lateral.bias) + guide


class SemanticHead(nn.Module):
    """Panoptic FPN's semantic branch (Kirillov et al., CVPR 2019).

    Every level is convolved and doubled until it has the finest level's size; their sum is
    classified.

    Args:
        labels: classes and the background.
        dropout: fraction of channels zeroed before the classifier.
    """

    def __init__(self, channels: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(_convolution(channels) for _ in range(max(1, level)))
            for level in range(_LEVELS)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, labels, 1)

    def forward(
        self, levels: Sequence[Float[Tensor, "batch channels _ _"]]
    ) -> Float[Tensor, "batch labels height across"]:
        """Logits at the size of the finest level."""
        size = levels[0].shape[2:]
        total = None
        for index, (steps, level) in enumerate(zip(self.levels.children(), levels, strict=True)):
            for step in steps.children():
                level = step(level)
                if index:
                    level = F.interpolate(level, scale_factor=2, mode="bilinear")
            if level.shape[2:] != size:
                level = F.interpolate(level, size, mode="bilinear")
            total = level if total is None else total + level
        return self.classify(self.dropout(total))


def _convolution(channels: int) -> nn.Sequential:
    return nn.Sequential(
        _start(nn.Conv2d(channels, channels, 3, padding=1, bias=False)),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def _start(convolution: nn.Conv2d) -> nn.Conv2d:
    """The start of mmcv's ConvModule."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution
