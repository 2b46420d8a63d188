"""Losses that learn from seeds and from the edges of the image (WeakCLIP; DSRG, SEC).

Eq. 17-21 of docs/methods/weakclip.md. Labels that an image cannot have may be taken out with
``allowed``: they get no share of the probabilities, take no part in the CRF and receive no
gradient. None: every label, as released.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from wsss.compute.packed_rows import to_device
from wsss.compute.pool import WorkerPool
from wsss.config.labels import CrfConfig
from wsss.labels.device_crf import posteriors
from wsss.labels.ignore import IGNORED
from wsss.refine.blocks.losses import batch_mean
from wsss.refine.weakclip.smoothing import FLOOR, smoothed

_TINY = 1e-7  # floor of a probability
_NO_CUE = 1e-4  # instead of a count of zero
_RATIO = (0.05, 20.0)
_OUT = -1e4  # the logit of a label that is not allowed


def label_probabilities(
    logits: Float[Tensor, "batch labels h w"], allowed: Bool[Tensor, "batch labels"] | None = None
) -> Float[Tensor, "batch labels h w"]:
    """Softmax with a floor of 1e-7, renormalised: P of the losses.

    Args:
        logits: of all labels, background first.
        allowed: labels that an image can have; others are 0.
    """
    if allowed is None:
        probs = logits.softmax(1) + _TINY
    else:
        can = allowed[:, :, None, None]
        probs = logits.masked_fill(~can, _OUT).softmax(1) + _TINY * can
    return probs / probs.sum(1, keepdim=True)


def seed_loss(
    probabilities: Float[Tensor, "batch labels h w"], seeds: Integer[Tensor, "batch h w"]
) -> Float[Tensor, ""]:
    """Balanced seed loss: mean of -log P over background cues, and over all foreground cues.

    Per image, then averaged over the images; an image without such cues counts as 0.

    Args:
        probabilities: from `label_probabilities`.
        seeds: label of each pixel; 255 and what is no label give no cue. The seed of a label that
            is not allowed gives none either.
    """
    labels = probabilities.shape[1]
    valid = seeds < labels
    # (B, 1, h, w) -> (B, h, w)
    probs = probabilities.gather(1, (seeds.long() * valid)[:, None])[:, 0]
    loss = -torch.where(probs > 0, probs, 1.0).log()
    valid = valid & (probs > 0)
    return _balanced(loss, valid & (seeds == 0)) + _balanced(loss, valid & (seeds > 0))


def _balanced(loss: Tensor, where: Bool[Tensor, "batch h w"]) -> Float[Tensor, ""]:
    count = where.sum((1, 2)).clamp_min(_NO_CUE)
    return ((loss * where).sum((1, 2)) / count).mean()


def boundary_loss(
    probabilities: Float[Tensor, "batch labels h w"],
    smoothed: Float[Tensor, "batch labels h w"],
    valid: Bool[Tensor, "batch h w"] | None = None,
) -> Float[Tensor, ""]:
    """Divergence of the prediction from what the CRF makes of it: mean of ``sum_k C log(C / P)``.

    The ratio is clipped to 0.05 … 20; where it is, there is no gradient.

    Args:
        probabilities: P, from `label_probabilities`.
        smoothed: C, from `start_crf`.
        valid: False in padding. None, as released: all pixels count.
    """
    ratio = (smoothed / probabilities.clamp_min(_TINY * _TINY)).clamp(*_RATIO)
    loss = (smoothed * ratio.log()).sum(1)  # (B, h, w)
    if valid is None:
        return loss.mean()
    return batch_mean((loss * valid).sum(), valid.sum())


@torch.no_grad()
def start_crf(
    probabilities: Float[Tensor, "batch labels h w"],
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    crf: CrfConfig,
    allowed: Bool[Tensor, "batch labels"] | None,
    pool: WorkerPool,
) -> Callable[[], Float[Tensor, "batch labels h w"]]:
    """Start the CRF of a prediction: its posterior, floored at 1e-4 and renormalised; no gradient.

    Args:
        probabilities: P.
        images: RGB, of the size of P.
        allowed: labels that enter an image's CRF; others are 0. None: all.
        pool: processes that share the images. On a GPU the backend torch runs there instead.

    Returns:
        Waits for the posteriors.
    """
    if probabilities.is_cuda and crf.backend == "torch":
        after_crf = _crf_on_device(probabilities, images, crf, allowed)
        return lambda: after_crf
    before = probabilities.cpu().numpy()
    enters = np.ones(before.shape[:2], bool) if allowed is None else allowed.cpu().numpy()
    crops = zip(before, enters, images, strict=True)
    tasks = [(f"crop {n}", (probs[rows], photo)) for n, (probs, rows, photo) in enumerate(crops)]
    results = pool.start(functools.partial(smoothed, crf=crf), tasks)

    def finish() -> Float[Tensor, "batch labels h w"]:
        after = np.zeros_like(before)
        for maps, rows, (_, refined) in zip(after, enters, results, strict=True):
            maps[rows] = refined
        return to_device(torch.from_numpy(after), probabilities.device)

    return finish


def _crf_on_device(
    probabilities: Float[Tensor, "batch labels h w"],
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    crf: CrfConfig,
    allowed: Bool[Tensor, "batch labels"] | None,
) -> Float[Tensor, "batch labels h w"]:
    """The posteriors of `start_crf` where the probabilities are, all images at once."""
    batch, labels = probabilities.shape[:2]
    rows = [torch.arange(labels)] * batch
    if allowed is not None:
        rows = [can.nonzero()[:, 0] for can in allowed.cpu()]
    places = [to_device(row, probabilities.device) for row in rows]
    energies = [
        -p[row].clamp_min(FLOOR).log() for p, row in zip(probabilities, places, strict=True)
    ]
    after = torch.zeros_like(probabilities)
    refined = posteriors(energies, images, [crf] * batch)
    for target, row, posterior in zip(after, places, refined, strict=True):
        floored = posterior.clamp_min(FLOOR)
        target[row] = floored / floored.sum(0)
    return after


def auxiliary_loss(
    match: Float[Tensor, "batch labels rows columns"],
    seeds: Integer[Tensor, "batch height width"],
    *,
    temperature: float,
    allowed: Bool[Tensor, "batch labels"] | None = None,
    ignored_count: bool = False,
) -> Float[Tensor, ""]:
    """Cross-entropy of the match map, sharpened and at the size of the seeds (eq. 21).

    Args:
        match: lambda', cosines.
        seeds: label of each pixel, 255 to skip.
        temperature: of the softmax (published: 0.07).
        allowed: labels that an image can have.
        ignored_count: the mean runs over skipped pixels, too, as mmsegmentation 0.19 does.
    """
    size = (seeds.shape[1], seeds.shape[2])
    logits = F.interpolate(match / temperature, size, mode="bilinear", align_corners=False)
    if allowed is not None:
        logits = logits.masked_fill(~allowed[:, :, None, None], _OUT)
        able = allowed.gather(1, seeds.long().clamp_max(allowed.shape[1] - 1).flatten(1))
        seeds = seeds.masked_fill(~able.view(seeds.shape), IGNORED)
    target = seeds.long().masked_fill(seeds >= match.shape[1], IGNORED)
    total = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
    count = torch.ones_like(target) if ignored_count else target != IGNORED
    return batch_mean(total, count.sum())
