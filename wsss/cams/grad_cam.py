"""Softmax Grad-CAM on the last block of a frozen CLIP (CLIP-ES).

Eq. 5-12 of docs/methods/clip-es.md. The image is compared with the prompts of its classes and with
all background prompts; other classes are left out, so that they do not compete. The gradient of
each class's score with respect to the output of the last block's first norm weights the channels of
that output. All classes of all images of a batch share one forward pass and one vector-Jacobian
product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss.cams.maps import BatchCams, Scaling, pack_classes, scale_maps
from wsss.cams.patch_affinity import patch_features
from wsss.clip.encoder import ClipEncoder, ScoredBlock
from wsss.clip.text.embeddings import TextBank
from wsss.compute.packed_rows import to_device

Gradient = Literal["margin", "softmax"]


@dataclass(frozen=True)
class GradCam(BatchCams):
    """Raw maps of a batch: weighted channel sums, whose positive part is the CAM."""

    channel_weights: Float[Tensor, "rows token_dim"]
    features: Float[Tensor, "batch patches embed_dim"] | None = None
    """Patches in the space of the texts; None where they were not asked for."""

    def scaled(self, scaling: Scaling = "exact") -> Float[Tensor, "rows height width"]:
        """The CAMs: positive parts of the maps, scaled to [0, 1]."""
        return scale_maps(self.maps.relu(), scaling)


@torch.no_grad()
def grad_cam(
    encoder: ClipEncoder,
    images: Float[Tensor, "batch 3 height width"],
    classes: Sequence[Sequence[int]],
    bank: TextBank,
    gradient: Gradient = "margin",
    attention_blocks: int = 0,
    features: bool = False,
) -> GradCam:
    """Raw class activation maps of images of one size.

    Args:
        images: normalised; sides are multiples of the patch.
        classes: indices into ``bank.classes`` of each image; may be empty for an image.
        gradient: see `score_gradients`.
        attention_blocks: number of last blocks whose attention is averaged; 0 returns none.
        features: also return the patches in the space of the texts.

    Raises:
        ValueError: a class is named twice, a length does not match, or there are too few blocks.
    """
    if len(classes) != len(images) or any(len(set(row)) != len(row) for row in classes):
        raise ValueError(
            f"{len(images)} images with classes {classes}: expected one list each, without repeats"
        )
    if not 0 <= attention_blocks <= encoder.depth:
        raise ValueError(
            f"attention of the last {attention_blocks} blocks: the encoder has {encoder.depth}"
        )
    last, first = encoder.depth - 1, encoder.depth - attention_blocks
    encoding = encoder.run(images, until=last, attention_sum_of=range(first, last))
    block = encoder.last_block(encoding.tokens, encoding.grid)
    cams = block_cams(encoder, block, encoding.grid, classes, bank, gradient)
    if features:
        cams = replace(cams, features=patch_features(encoder, block.tokens, encoding.grid))
    if not attention_blocks:
        return cams
    total = block.attention.mean(1)
    if encoding.attention_sum is not None:
        total += encoding.attention_sum
    return replace(cams, attention=total / attention_blocks)


@torch.no_grad()
def block_cams(
    encoder: ClipEncoder,
    block: ScoredBlock,
    grid: tuple[int, int],
    classes: Sequence[Sequence[int]],
    bank: TextBank,
    gradient: Gradient = "margin",
) -> GradCam:
    """`grad_cam` from the last block's forward pass; without attention.

    Args:
        block: of the images, from `ClipEncoder.last_block`.
        grid: rows and columns of the patches.
        classes: see `grad_cam`.
        gradient: see `score_gradients`.
    """
    device = encoder.device
    packed = pack_classes(classes)
    image_index, class_index = to_device(torch.stack(packed), device)
    features = encoder.project(block.pooled)
    probabilities, grad_outputs = score_gradients(
        features,
        packed[0],
        bank.classes.to(device)[class_index],
        bank.backgrounds.to(device),
        encoder.logit_scale,
        gradient,
    )
    if encoder.projection is not None:
        grad_outputs = grad_outputs @ encoder.projection.T
    channels = block.vjp(grad_outputs, packed[0])
    activation = block.normed[:, -grid[0] * grid[1] :]  # patches alone
    if len(classes) > 1:
        activation = activation[image_index]
    # (R, N, D) x (R, D, 1) -> (R, N) -> (R, h, w)
    maps = (activation @ channels.unsqueeze(-1)).squeeze(-1).unflatten(1, grid)
    return GradCam(packed[0], maps, probabilities, None, channels)


def score_gradients(
    features: Float[Tensor, "batch embed_dim"],
    image_index: Int[Tensor, " rows"],
    classes: Float[Tensor, "rows embed_dim"],
    backgrounds: Float[Tensor, "backgrounds embed_dim"],
    logit_scale: float,
    gradient: Gradient,
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows embed_dim"]]:
    """Class probabilities, and gradients of class scores with respect to the image feature.

    The logits of an image are scaled cosines with its own classes and the backgrounds.

    Args:
        features: image features, not normalised.
        image_index: the image of each row; best on the CPU.
        classes: text feature of each row's class.
        backgrounds: text features of the background prompts; may be empty.
        logit_scale: factor of the cosines.
        gradient: ``softmax`` takes the probability p_k of the class as its score, as published. Its
            gradient has a factor p_k (1 - p_k), which vanishes on images that the model is sure of.
            ``margin`` takes z_k - logsumexp of the other logits: the same direction without that
            factor, and as maps are scaled to [0, 1] the same map (eq. 7 and 8 of
            docs/methods/clip-es.md). With nothing to compare with (one class, no background) the
            margin is the logit itself, while the published gradient is zero.
    """
    length = features.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(features.dtype).tiny)
    unit = features / length
    texts = torch.cat([classes, backgrounds])
    index = to_device(image_index, features.device)
    unit_rows = unit[index]
    logits = logit_scale * unit_rows @ texts.T  # (R, R + M)
    rows = len(image_index)
    # Texts of other images' rows, and the text of the row itself
    excluded = torch.zeros(2, *logits.shape, dtype=torch.bool, device=image_index.device)
    excluded[0, :, :rows] = image_index[:, None] != image_index
    excluded[1].fill_diagonal_(True)
    other_image, own = to_device(excluded, features.device)
    logits = logits.masked_fill(other_image, -torch.inf)
    probs = torch.softmax(logits, dim=-1)
    class_probs = probs.diagonal().clone()
    if gradient == "softmax":
        grad_logits = -class_probs[:, None] * probs
        grad_logits.diagonal().add_(class_probs)
    else:
        grad_logits = -torch.softmax(logits.masked_fill(own, -torch.inf), dim=-1)
        if not len(backgrounds):  # a row of -inf alone has no softmax: nothing to compare with
            grad_logits.nan_to_num_(nan=0.0)
        grad_logits.diagonal().fill_(1.0)
    direction = grad_logits @ texts  # (R, R + M) x (R + M, C)
    radial = (direction * unit_rows).sum(-1, keepdim=True)
    return class_probs, logit_scale * (direction - radial * unit_rows) / length[index]
