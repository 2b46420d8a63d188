"""Softmax Grad-CAM on the last block of a frozen CLIP (CLIP-ES).

Eq. 5-12 of docs/methods/clip-es.md.
The image is compared with the prompts of its own classes and with all background prompts; classes
that it does not have are left out, so that they do not compete. The gradient of each class's score
with respect to the last block's first norm weights that activation's channels. All classes of all
images of a batch share one forward pass and one pull-back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss.clip.encoder import ClipEncoder
from wsss.clip.last_block import LastBlock
from wsss.clip.text.embeddings import TextBank

Gradient = Literal["margin", "softmax"]


@dataclass(frozen=True)
class GradCam:
    """Raw maps of all classes of a batch, packed: rows of the first image, then of the second …"""

    owner: Int[Tensor, " rows"]
    """Which image of the batch a row belongs to."""
    maps: Float[Tensor, "rows height width"]
    """Weighted channel sums, before the negative part is cut off."""
    probabilities: Float[Tensor, " rows"]
    """Softmax probability of the class among the image's classes and the backgrounds."""
    channel_weights: Float[Tensor, "rows width_of_tokens"]
    attention: Float[Tensor, "batch tokens tokens"] | None
    """Mean attention over heads and the last blocks that were asked for, class token included."""


@torch.no_grad()
def grad_cam(
    encoder: ClipEncoder,
    images: Float[Tensor, "batch 3 height width"],
    classes: Sequence[Sequence[int]],
    bank: TextBank,
    *,
    gradient: Gradient = "margin",
    attention_blocks: int = 0,
) -> GradCam:
    """Raw class activation maps of images of one size.

    Args:
        encoder: the frozen encoder.
        images: normalised; sides are multiples of the patch.
        classes: indices into ``bank.classes`` of each image; may be empty for an image.
        bank: text features.
        gradient: see `score_cotangents`.
        attention_blocks: number of last blocks whose attention is averaged; 0 for none.

    Raises:
        ValueError: a class is named twice, a length does not match, or there are too few blocks.
    """
    if len(classes) != len(images) or any(len(set(one)) != len(one) for one in classes):
        raise ValueError(
            f"{len(images)} images with classes {classes}: expected one list each, without repeats"
        )
    if not 0 <= attention_blocks <= encoder.depth:
        raise ValueError(
            f"attention of the last {attention_blocks} blocks: the encoder has {encoder.depth}"
        )
    last = encoder.depth - 1
    first = encoder.depth - attention_blocks
    encoding = encoder.run(images, until=last, attention_sum_of=range(first, last))
    block = encoder.last_block(encoding.tokens)
    total = block.attention.mean(1) if attention_blocks else None
    if total is not None and encoding.attention_sum is not None:
        total += encoding.attention_sum
    mean = None if total is None else total / attention_blocks
    found = block_cams(encoder, block, encoding.grid, classes, bank, gradient)
    return replace(found, attention=mean)


@torch.no_grad()
def block_cams(
    encoder: ClipEncoder,
    block: LastBlock,
    grid: tuple[int, int],
    classes: Sequence[Sequence[int]],
    bank: TextBank,
    gradient: Gradient = "margin",
) -> GradCam:
    """`grad_cam` from the last block's pass on; without attention.

    Args:
        encoder: the frozen encoder.
        block: of the images, from `ClipEncoder.last_block`.
        grid: rows and columns of the patches.
        classes: see `grad_cam`.
        bank: text features.
        gradient: see `score_cotangents`.
    """
    device = encoder.device
    owner = torch.tensor([i for i, one in enumerate(classes) for _ in one], dtype=torch.long)
    present = torch.tensor([k for one in classes for k in one], dtype=torch.long)
    owner, present = owner.to(device), present.to(device)
    features = encoder.project(block.pooled)
    probabilities, cotangents = score_cotangents(
        features,
        owner,
        bank.classes.to(device)[present],
        bank.backgrounds.to(device),
        encoder.logit_scale,
        gradient,
    )
    if encoder.projection is not None:
        cotangents = cotangents @ encoder.projection.T
    channels = block.pull_back(cotangents, owner)
    activation = block.normed[:, 1:][owner] if len(classes) > 1 else block.normed[:, 1:]
    # (R, N, D) x (R, D, 1) -> (R, N) -> (R, h, w)
    maps = (activation @ channels.unsqueeze(-1)).squeeze(-1).unflatten(1, grid)
    return GradCam(owner, maps, probabilities, channels, None)


def score_cotangents(
    features: Float[Tensor, "batch joint"],
    owner: Int[Tensor, " rows"],
    classes: Float[Tensor, "rows joint"],
    backgrounds: Float[Tensor, "backgrounds joint"],
    logit_scale: float,
    gradient: Gradient,
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows joint"]]:
    """Class probabilities, and gradients of class scores with respect to the image feature.

    The logits of an image are scaled cosines with its own classes and the backgrounds.

    Args:
        features: image features, not normalised.
        owner: the image of each row.
        classes: text feature of each row's class.
        backgrounds: text features of the background prompts; may be empty.
        logit_scale: factor of the cosines.
        gradient: ``softmax`` takes the probability p_k of the class as its score, as published. Its
            gradient carries a factor p_k (1 - p_k), which vanishes on images that the model is sure
            of. ``margin`` takes z_k - logsumexp of the other logits: the same direction without
            that factor, and as maps are scaled to [0, 1] the same map (eq. 7 and 8 of
            docs/methods/clip-es.md). With nothing to compare with (one class, no background) the
            margin is the logit itself, while the published gradient is zero.
    """
    length = features.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(features.dtype).tiny)
    unit = features / length
    texts = torch.cat([classes, backgrounds])
    mine = unit[owner]
    logits = logit_scale * mine @ texts.T  # (R, R + M)
    rows = torch.arange(len(owner), device=owner.device)
    own = torch.zeros_like(logits, dtype=torch.bool)
    own[:, : len(owner)] = owner[:, None] != owner
    logits = logits.masked_fill(own, -torch.inf)
    chances = torch.softmax(logits, dim=-1)
    probability = chances[rows, rows]
    if gradient == "softmax":
        toward = -probability[:, None] * chances
        toward[rows, rows] += probability
    else:
        others = logits.clone()
        others[rows, rows] = -torch.inf
        # A row of nothing but -inf has no softmax: there is nothing to compare with.
        toward = -torch.nan_to_num(torch.softmax(others, dim=-1), nan=0.0)
        toward[rows, rows] = 1.0
    direction = toward @ texts  # (R, R + M) x (R + M, C)
    along = (direction * mine).sum(-1, keepdim=True)
    return probability, logit_scale * (direction - along * mine) / length[owner]
