"""The gradient-free part of a refiner: one pass of the frozen encoder over a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wsss.cams.patch_affinity import patch_features
from wsss.clip.encoder import ClipEncoder, ScoredBlock


@dataclass(frozen=True)
class EncoderFeatures:
    """One pass of the frozen encoder."""

    grid: tuple[int, int]
    features: Float[Tensor, "blocks batch patches tokens"]
    """Patch tokens: outputs of the asked blocks (eq. 1 of docs/methods/weclip.md)."""
    attention: Float[Tensor, "batch candidates patches patches"] | None
    """Head-mean attention of the requested last blocks, patches only."""
    block: ScoredBlock | None
    """The last block's pass, where Grad-CAM or the projection needs it."""
    compared: Float[Tensor, "batch patches channels"] | None = None
    """Patch features that the affinity compares: of CLIP in the space of the texts, or others."""


@torch.no_grad()
def encode(
    encoder: ClipEncoder,
    images: Float[Tensor, "batch 3 height width"],
    *,
    attention_blocks: int = 0,
    last_block: bool = False,
    projected: bool = False,
    features_of: Sequence[int] | None = None,
    last_input: int | None = None,
) -> EncoderFeatures:
    """Run the encoder once, no further than necessary.

    Args:
        images: normalised; sides are multiples of the patch.
        attention_blocks: number of last blocks whose attention is returned.
        last_block: also run the last block in full, ready for Grad-CAM.
        projected: also return the patches in the space of the texts, as what is compared.
        features_of: blocks (from 0) whose outputs are returned; None: all but the last.
        last_input: the block whose output enters the last block; None: the one before it.

    Raises:
        ValueError: there are not so many blocks.
    """
    if attention_blocks > encoder.depth:
        raise ValueError(
            f"attention of the last {attention_blocks} blocks: the encoder has {encoder.depth}; "
            "lower cams.affinity.last_blocks or the method's rfm_blocks"
        )
    last = encoder.depth - 1
    earlier = range(encoder.depth - attention_blocks, last) if attention_blocks else range(0)
    returned = range(last) if features_of is None else features_of
    entering = last - 1 if last_input is None else last_input
    outputs = {*returned, entering}
    encoding = encoder.run(images, until=last, outputs_of=outputs, attention_of=earlier)
    rows, columns = grid = encoding.grid
    patches = slice(-rows * columns, None)  # without the class token, if there is one
    features = torch.stack([encoding.outputs[index][:, patches] for index in returned])
    tokens = encoding.outputs[entering]
    block = encoder.last_block(tokens, grid) if last_block or projected else None
    attention = None
    if attention_blocks:
        newest = encoder.last_attention(tokens, grid) if block is None else block.attention.mean(1)
        maps = [*(encoding.attention[index] for index in earlier), newest]
        attention = torch.stack([of_block[:, patches, patches] for of_block in maps], dim=1)
    compared = patch_features(encoder, block.tokens, grid) if block and projected else None
    return EncoderFeatures(grid, features, attention, block, compared)
