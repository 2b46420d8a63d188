"""What WeCLIP+ trains: a head for each frozen encoder, and one decoder of both."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss.refine.blocks.decoder import TransformerDecoder
from wsss.refine.blocks.fusion import FeatureFusion
from wsss.refine.blocks.options import HeadOptions


class FullSize(NamedTuple):
    """Logits at the size of an image."""

    clip: Float[Tensor, "batch labels height width"]
    dino: Float[Tensor, "batch labels height width"]
    both: Float[Tensor, "batch labels height width"]
    """Their mean, which is the mean logits resized."""
    probabilities: Float[Tensor, "batch labels height width"]
    """Softmax of the mean."""


class BothDecoded(NamedTuple):
    """What the heads and the decoder make of the features of both encoders, on CLIP's grid."""

    clip: Float[Tensor, "batch width rows columns"]
    """Features F_c of CLIP's head, after dropout."""
    dino: Float[Tensor, "batch width rows columns"]
    """Features F_d of DINOv2's head, after dropout."""
    clip_logits: Float[Tensor, "batch labels rows columns"]
    """z_c: the decoder's logits of F_c."""
    dino_logits: Float[Tensor, "batch labels rows columns"]
    """z_d: the decoder's logits of F_d."""

    @property
    def logits(self) -> Float[Tensor, "batch labels rows columns"]:
        """z, the prediction: the mean of both."""
        return (self.clip_logits + self.dino_logits) / 2

    def at(self, size: tuple[int, int]) -> FullSize:
        """The logits at a height and width, bilinearly resized."""
        both = torch.cat([self.clip_logits, self.dino_logits])
        clip, dino = F.interpolate(both, size, mode="bilinear", align_corners=False).chunk(2)
        mean = (clip + dino) / 2
        return FullSize(clip, dino, mean, mean.softmax(1))


class BothHeads(nn.Module):
    """A head per encoder, and a decoder that they share (eq. 5-7 of docs/methods/weclip-plus.md).

    Args:
        clip_width: of a token of CLIP.
        dino_width: of a token of DINOv2.
        labels: classes and the background.
        settings: width, depth, heads and dropout.
    """

    def __init__(
        self, clip_width: int, dino_width: int, labels: int, settings: HeadOptions
    ) -> None:
        super().__init__()
        width = settings.width
        self.clip = FeatureFusion(1, clip_width, width)
        self.dino = FeatureFusion(1, dino_width, width)
        self.dropout = nn.Dropout2d(settings.dropout)  # of whole channels
        self.decoder = TransformerDecoder(labels, width, depth=settings.depth, heads=settings.heads)

    def forward(
        self,
        clip_tokens: Float[Tensor, "batch patches clip_width"],
        grid: tuple[int, int],
        dino_tokens: Float[Tensor, "batch dino_patches dino_width"],
        dino_grid: tuple[int, int],
    ) -> BothDecoded:
        """Fuse and decode.

        Args:
            clip_tokens: patch tokens of CLIP.
            grid: their rows and columns.
            dino_tokens: patch tokens of DINOv2.
            dino_grid: their rows and columns.
        """
        clip = self.dropout(self.clip(clip_tokens[None], grid))
        dino = self.dropout(self.dino(dino_tokens[None], dino_grid))
        dino = F.interpolate(dino, size=grid, mode="bilinear", align_corners=False)
        clip_logits, dino_logits = self.decoder(torch.cat([clip, dino])).chunk(2)
        return BothDecoded(clip, dino, clip_logits, dino_logits)
