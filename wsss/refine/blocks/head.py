"""What WeCLIP and ExCEL train on top of the frozen encoder: feature fusion and decoder."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from wsss.refine.blocks.decoder import TransformerDecoder
from wsss.refine.blocks.fusion import FeatureFusion
from wsss.refine.blocks.options import HeadOptions


class Decoded(NamedTuple):
    """What the head makes of the encoder's features."""

    clean: Float[Tensor, "batch width rows columns"]
    """Fused features before dropout."""
    fused: Float[Tensor, "batch width rows columns"]
    """Fused features F_u, which the decoder is given."""
    logits: Float[Tensor, "batch labels rows columns"]
    """On the patch grid."""


class Head(nn.Module):
    """Fused features F_u and the logits that the decoder makes of them.

    Eq. 2-5 of docs/methods/weclip.md.

    Args:
        blocks: number of maps of features that are fused.
        tokens: width of a token of the encoder.
        labels: classes and the background.
        settings: width, depth, heads and dropout.
    """

    def __init__(self, blocks: int, tokens: int, labels: int, settings: HeadOptions) -> None:
        super().__init__()
        width = settings.width
        self.fusion = FeatureFusion(blocks, tokens, width)
        self.dropout = nn.Dropout2d(settings.dropout)  # of whole channels
        self.decoder = TransformerDecoder(labels, width, depth=settings.depth, heads=settings.heads)

    def forward(
        self, features: Float[Tensor, "blocks batch patches tokens"], grid: tuple[int, int]
    ) -> Decoded:
        """Fuse and decode.

        Args:
            features: patch tokens of the blocks' outputs.
            grid: rows and columns of the patches.
        """
        clean = self.fusion(features, grid)
        fused = self.dropout(clean)
        return Decoded(clean, fused, self.decoder(fused))
