"""What WeCLIP trains on top of the frozen encoder: feature fusion and transformer decoder."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from wsss.config.refine import WeClipConfig
from wsss.refine.decoder import TransformerDecoder
from wsss.refine.fusion import FeatureFusion, feature_affinity


class Head(nn.Module):
    """Fused features F_u and the logits that the decoder makes of them (spec WeCLIP 2.2).

    Args:
        blocks: number of block outputs that are fused.
        tokens: width of a token of the encoder.
        labels: classes and the background.
        settings: width, depth, heads, dropout and form of the affinity.
    """

    def __init__(self, blocks: int, tokens: int, labels: int, settings: WeClipConfig) -> None:
        super().__init__()
        width = settings.width
        self.fusion = FeatureFusion(blocks, tokens, width, dropout=settings.dropout)
        self.decoder = TransformerDecoder(labels, width, depth=settings.depth, heads=settings.heads)

        self._temperature = settings.temperature if settings.affinity == "cosine" else None

    def affinity(
        self, fused: Float[Tensor, "batch width rows columns"]
    ) -> Float[Tensor, "batch patches patches"]:
        """Learned affinity A_f between patches, in 0..1."""
        return feature_affinity(fused, self._temperature)

    def forward(
        self, features: Float[Tensor, "blocks batch patches tokens"], grid: tuple[int, int]
    ) -> tuple[
        Float[Tensor, "batch width rows columns"], Float[Tensor, "batch labels rows columns"]
    ]:
        """Fused features, and logits on the patch grid.

        Args:
            features: patch tokens of the blocks' outputs.
            grid: rows and columns of the patches.
        """
        fused = self.fusion(features, grid)
        return fused, self.decoder(fused)
