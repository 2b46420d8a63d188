"""ExCEL's pass of the frozen encoder, and the learned relation that calibrates it (LVC).

One pass gives everything. The learned relation E shifts the attention of every calibrated block
alike, so the dynamic stream is the static one plus ``gain * E U``; no second pass is needed
(docs/methods/excel.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss.cams.patch_text import PatchText
from wsss.refine.excel.options import ExcelOptions


@dataclass(frozen=True)
class CalibratedFeatures:
    """One pass of the frozen encoder."""

    grid: tuple[int, int]
    features: Float[Tensor, "blocks batch patches width"]
    """What the head fuses."""
    attention: Float[Tensor, "batch candidates patches patches"] | None
    """Attention of the requested last blocks, patches only."""
    stream: Float[Tensor, "batch tokens width"]
    """The calibrated stream, with the encoder's class token first."""
    value_updates: Float[Tensor, "batch patches width"] | None
    """U, see `wsss.clip.calibration`; None if it was not requested."""


@torch.no_grad()
def encode(
    scores: PatchText,
    images: Float[Tensor, "batch 3 height width"],
    features: Literal["aliased", "clean"],
    *,
    attention_blocks: int = 0,
    value_updates: bool = False,
) -> CalibratedFeatures:
    """Run the encoder once.

    Args:
        scores: the encoder and its calibration.
        images: normalised; sides are multiples of the patch.
        features: ``clean``: the outputs of all blocks. ``aliased``, as published: the block before
            the calibrated ones is replaced by the calibrated stream, and the calibrated ones but
            the last by the state before the MLP of the next block.
        attention_blocks: number of last blocks whose attention is returned.
        value_updates: also return U.

    Raises:
        ValueError: there are not so many blocks, or nothing is calibrated.
    """
    encoder, first = scores.encoder, scores.first
    if attention_blocks > encoder.depth:
        raise ValueError(
            f"attention of the last {attention_blocks} blocks: the encoder has {encoder.depth}; "
            "lower cams.affinity.last_blocks or refine.excel.lvc_blocks"
        )
    blocks = range(encoder.depth - attention_blocks, encoder.depth)
    calibration = scores.calibration(value_updates=value_updates)
    if calibration is None:
        raise ValueError("ExCEL calibrates attention; cams.patch_text.relation must not be none")
    encoding = encoder.run(
        images,
        outputs_of=range(encoder.depth),
        post_attention_of=range(first + 1, encoder.depth) if features == "aliased" else (),
        attention_of=blocks,
        calibration=calibration,
    )
    stream = calibration.stream(encoding.tokens)
    tokens = [encoding.outputs[block] for block in range(encoder.depth)]
    if features == "aliased":
        tokens[first : encoder.depth - 1] = [
            encoding.post_attention[block] for block in range(first + 1, encoder.depth)
        ]
        if first:
            tokens[first - 1] = stream
    attention = None
    if attention_blocks:
        between_patches = [encoding.attention[block][:, 1:, 1:] for block in blocks]
        batch, patches, _ = between_patches[0].shape
        attention = between_patches[0].new_empty(batch, len(blocks), patches, patches)
        for index, block in enumerate(blocks):  # torch.stack would copy them once more
            weight = scores.attention_weight(block)
            torch.mul(between_patches[index], weight, out=attention[:, index])
    return CalibratedFeatures(
        encoding.grid,
        torch.stack([of_block[:, 1:] for of_block in tokens]),
        attention,
        stream,
        calibration.value_updates if value_updates else None,
    )


def relation(
    fused: Float[Tensor, "batch width rows columns"], options: ExcelOptions
) -> Float[Tensor, "batch patches patches"]:
    """R: centred cosines between fused features (eq. 15 of docs/methods/excel.md).

    Its sigmoid is the learned affinity, `shift` of it calibrates the CAM.
    """
    flat = F.normalize(fused.flatten(2), dim=1)  # (B, C, h, w) -> (B, C, N)
    cosines = flat.transpose(1, 2) @ flat
    if options.relation_mean == "batch":
        mean = cosines.mean()
    else:
        mean = cosines.mean((1, 2), keepdim=True)
    return options.relation_scale * (cosines - mean)


def shift(
    related: Float[Tensor, "batch patches patches"],
) -> Float[Tensor, "batch patches patches"]:
    """E: a softmax over the patches more alike than the mean; rows sum to one (eq. 17)."""
    return torch.softmax(related.masked_fill(related < 0, -torch.inf), dim=-1)
