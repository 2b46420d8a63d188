"""ExCEL's teacher: patch-text CAMs that the learned relation calibrates (LVC), and their labels.

One pass of the frozen encoder gives everything. Equations: docs/methods/excel.md. The learned
relation E shifts the attention of every calibrated block alike, so the dynamic stream is the static
one plus ``gain * E U``; no second pass is needed (eq. 18).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from wsss.cams.patch_text import PatchText
from wsss.config.cams import CamsConfig
from wsss.refine.blocks.pseudo_labels import crop_labels, shown_tags
from wsss.refine.blocks.refinement import refined_cams
from wsss.refine.excel.options import ExcelOptions
from wsss.refine.training.crops import CropBatch


@dataclass(frozen=True)
class Seen:
    """One pass of the frozen encoder."""

    grid: tuple[int, int]
    features: Float[Tensor, "blocks batch patches width"]
    """What the head fuses."""
    attention: Float[Tensor, "batch candidates patches patches"] | None
    """Attention of the last blocks that were asked for, patches only."""
    stream: Float[Tensor, "batch tokens width"]
    """The calibrated stream, with the encoder's class token first."""
    value_updates: Float[Tensor, "batch patches width"] | None
    """U, see `wsss.clip.calibration`; None where it was not asked for."""


@torch.no_grad()
def look(
    scores: PatchText,
    images: Float[Tensor, "batch 3 height width"],
    features: Literal["aliased", "clean"],
    *,
    attention_blocks: int = 0,
    value_updates: bool = False,
) -> Seen:
    """Run the encoder once.

    Args:
        scores: the encoder and its calibration.
        images: normalised; sides are multiples of the patch.
        features: ``clean``: the outputs of all blocks. ``aliased``, as published: the block before
            the calibrated ones is replaced by the calibrated stream, and the calibrated ones but
            the last by the state before the MLP of the block after (eq. 14).
        attention_blocks: number of last blocks whose attention is returned.
        value_updates: also return U.

    Raises:
        ValueError: there are not so many blocks, or nothing is calibrated.
    """
    encoder, first = scores.encoder, scores.first
    if attention_blocks > encoder.depth:
        raise ValueError(
            f"attention of the last {attention_blocks} blocks: the encoder has {encoder.depth}"
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
    given = [encoding.outputs[number] for number in range(encoder.depth)]
    if features == "aliased":
        given[first : encoder.depth - 1] = [
            encoding.post_attention[number] for number in range(first + 1, encoder.depth)
        ]
        if first:
            given[first - 1] = stream
    attention = None
    if attention_blocks:
        each = [scores.attention_weight(n) * encoding.attention[n][:, 1:, 1:] for n in blocks]
        attention = torch.stack(each, dim=1)
    return Seen(
        encoding.grid,
        torch.stack([one[:, 1:] for one in given]),
        attention,
        stream,
        calibration.value_updates if value_updates else None,
    )


def relation(
    fused: Float[Tensor, "batch width rows columns"], settings: ExcelOptions
) -> Float[Tensor, "batch patches patches"]:
    """Centred cosines between fused features: R = 3 (f^T f - mean) (eq. 15).

    Its sigmoid is the learned affinity, `shift` of it calibrates the CAM.
    """
    flat = F.normalize(fused.flatten(2), dim=1)  # (B, C, h, w) -> (B, C, N)
    cosines = flat.transpose(1, 2) @ flat
    if settings.relation_mean == "batch":
        mean = cosines.mean()
    else:
        mean = cosines.mean((1, 2), keepdim=True)
    return settings.relation_scale * (cosines - mean)


def shift(
    related: Float[Tensor, "batch patches patches"],
) -> Float[Tensor, "batch patches patches"]:
    """E: a softmax over those patches that are more alike than the mean; rows sum to one."""
    return torch.softmax(related.masked_fill(related < 0, -torch.inf), dim=-1)


class Teacher:
    """CAMs and labels of batches.

    Args:
        scores: the patch-text similarity.
        cams: the affinity's settings.
        settings: refine.excel.
    """

    def __init__(self, scores: PatchText, cams: CamsConfig, settings: ExcelOptions) -> None:
        self.scores, self._cams, self._settings = scores, cams, settings

    def look(self, images: Float[Tensor, "batch 3 height width"], *, dynamic: bool) -> Seen:
        """Run the frozen encoder, as far as the head and `maps` need it."""
        settings, cams = self._settings, self._cams
        static = cams.affinity.last_blocks if cams.affinity.enabled else 0
        return look(
            self.scores,
            images,
            settings.features,
            attention_blocks=settings.lvc_blocks if dynamic else static,
            value_updates=dynamic,
        )

    @torch.no_grad()
    def features(
        self, seen: Seen, related: Float[Tensor, "batch patches patches"] | None = None
    ) -> Float[Tensor, "batch tokens joint"]:
        """Calibrated tokens in the joint space: static, or dynamic by the learned relation.

        Args:
            seen: from `look`.
            related: from `relation`; None for the static ones.
        """
        stream = seen.stream
        if related is not None:
            assert seen.value_updates is not None
            moved = self.scores.gain * (shift(related) @ seen.value_updates)
            stream = torch.cat([stream[:, :1], stream[:, 1:] + moved], dim=1)
        return self.scores.features(stream)

    @torch.no_grad()
    def refined(
        self,
        attention: Float[Tensor, "batch candidates patches patches"] | None,
        maps: Float[Tensor, "rows height width"],
        owner: Int[Tensor, " rows"],
        related: Float[Tensor, "batch patches patches"] | None = None,
    ) -> Float[Tensor, "rows height width"]:
        """Spread CAMs along the attention of the encoder, and the learned affinity if there is one.

        Args:
            attention: from `look`; None where maps are not spread.
            maps: in 0..1.
            owner: the image of each row, in ascending order.
            related: from `relation`; None before it is learned.
        """
        if attention is None:
            return maps
        affinity = None if related is None else related.sigmoid()
        args = (attention, maps, owner, self._cams, affinity)
        return refined_cams(*args, self._settings.block_distance)

    @torch.no_grad()
    def labels(
        self,
        batch: CropBatch,
        seen: Seen,
        related: Float[Tensor, "batch patches patches"] | None,
    ) -> UInt8[Tensor, "batch side side"]:
        """Label every pixel of crops: 0 background, class + 1, 255 where nothing is to be learned.

        Args:
            batch: on the encoder's device.
            seen: of its images.
            related: from `relation`, detached; None before it takes part.
        """
        if related is None and batch.labels is not None:
            return batch.labels
        features = self.features(seen, related)
        maps = self.scores.maps(features, seen.grid, batch.owner, batch.classes)
        sure = self.scores.probabilities(features, batch.owner, batch.classes)
        maps = self.refined(seen.attention, maps, batch.owner, related)
        return crop_labels(batch, maps, shown_tags(batch, self._settings, sure), self._settings)
