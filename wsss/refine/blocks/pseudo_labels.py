"""From CAMs of training crops to the labels that a refiner's decoder learns (WeCLIP, ExCEL)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from wsss.compute.packed_rows import to_device
from wsss.labels.ignore import IGNORED
from wsss.labels.online import IgnoreBand, online_labels
from wsss.refine.blocks.options import HeadOptions
from wsss.refine.training.crops import CropBatch


def ignore_band(settings: HeadOptions) -> IgnoreBand | None:
    """The configured ignore band; None where every pixel has a label."""
    return IgnoreBand(*settings.ignore_band) if settings.ignore_band else None


def padding_label(settings: HeadOptions) -> int:
    """What padding is labelled as where labels come from the whole image."""
    return IGNORED if settings.padding == "ignored" else 0


def shown_tags(
    batch: CropBatch,
    settings: HeadOptions,
    probabilities: Float[Tensor, " rows"],
) -> Bool[Tensor, " rows"]:
    """Whether a crop counts as showing the class of each row (``crop_visibility``).

    Args:
        probabilities: of the class on the crop, for ``gated``.
    """
    threshold = settings.visibility_threshold
    if settings.crop_visibility == "gated":
        return ~(probabilities < threshold * batch.probabilities)
    if settings.crop_visibility in ("located", "image"):
        return batch.maps.flatten(1).amax(1) >= threshold
    return torch.ones_like(batch.probabilities, dtype=torch.bool)


@torch.no_grad()
def crop_labels(
    batch: CropBatch,
    maps: Float[Tensor, "rows height width"],
    shown: Bool[Tensor, " rows"],
    settings: HeadOptions,
    images: Float[Tensor, "batch 3 side side"] | None = None,
) -> UInt8[Tensor, "batch side side"]:
    """Label every pixel: 0 background, class + 1, 255 where nothing is to be learned.

    Args:
        batch: on the device of the maps.
        maps: refined CAMs in 0..1, one for each row of the batch.
        shown: whether the crop shows the class of a row. Neither foreground nor background is
            learned where a tag that is not there would be.
        images: what the pixel-adaptive refinement sees; None for the images of the batch.
    """
    size = (batch.images.shape[-2], batch.images.shape[-1])
    labels = online_labels(
        batch.images if images is None else images,
        maps,
        batch.image_index,
        batch.classes,
        size,
        valid=batch.valid if settings.padding == "ignored" else None,
        ignore_band=ignore_band(settings),
    )
    absent = torch.zeros(len(labels), IGNORED + 1, dtype=torch.bool, device=labels.device)
    rows = torch.stack([batch.image_index, 1 + batch.classes])
    image, label = to_device(rows, labels.device)
    absent[image, label] = ~shown
    # (B, 256) indexed by (B, H W) -> (B, H, W)
    hidden = absent.gather(1, labels.flatten(1).long()).view(labels.shape)
    labels = labels.masked_fill(hidden, IGNORED)
    # Nothing is learned from an image without tags: what it shows is not known.
    untagged = torch.bincount(batch.image_index, minlength=len(labels)) == 0
    if not untagged.any():
        return labels
    return labels.masked_fill(to_device(untagged, labels.device)[:, None, None], IGNORED)
