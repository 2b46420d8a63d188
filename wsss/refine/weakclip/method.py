"""WeakCLIP (IJCV 2024): seeds in, pseudo masks out.

A text-guided segmenter on frozen CLIP features is trained on hard seeds: their cross-entropy, the
edges of the image through a CRF, and the cosines of patches and prompted class names. It is then
applied to the images that it was trained on. Symbols and equations: docs/methods/weakclip.md;
departures of the released code are options of ``refine.weakclip``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wsss.compute.packed_rows import to_device
from wsss.compute.pool import WorkerPool
from wsss.data.datasets.classes import spelling
from wsss.refine.base import CropOptions, Refiner, Scores, Setup
from wsss.refine.inference import MultiScaleInference
from wsss.refine.photo_scaler import Photo, PhotoScaler
from wsss.refine.training.crops import CropBatch
from wsss.refine.training.trainer import Group
from wsss.refine.weakclip.boundary import boundary_crf, grid_photos
from wsss.refine.weakclip.losses import (
    auxiliary_loss,
    boundary_loss,
    label_probabilities,
    seed_loss,
    start_crf,
)
from wsss.refine.weakclip.network import WeakClipNetwork
from wsss.refine.weakclip.options import WeakClipOptions

_BACKGROUND = "background"
_STRIDE = 4  # pixels per cell of the scores


class WeakClip(Refiner[WeakClipOptions]):
    """The refiner; see `wsss.refine.base.Refiner`.

    Args:
        network: instead of one with a random head.
    """

    def __init__(
        self, setup: Setup[WeakClipOptions], network: WeakClipNetwork | None = None
    ) -> None:
        super().__init__(setup)
        if network is None:
            clip, names = setup.encoder_input.clip, class_texts(setup)
            network = WeakClipNetwork(clip, self.encoder, names, self.options, setup.crop)
        self.network, self.trained = network, network.trained
        # On a CPU the CRFs are a hundredth of a step, less than the processes cost.
        self._pool = WorkerPool(setup.workers if self.encoder.device.type == "cuda" else 1)
        self._crf = boundary_crf(self.options.boundary, max(1, self.encoder.patch[0] // 2))

    def loss(self, step: int, batch: CropBatch) -> Mapping[str, Tensor]:
        """Weighted sum of ``seed``, ``boundary`` and ``auxiliary`` (eq. 17-22)."""
        options = self.options
        assert batch.labels is not None
        match, small = self._match_and_logits(batch.images)
        size = (small.shape[-2], small.shape[-1])
        tags = _tags_of(batch, small.shape[1])
        masked = options.tags_in_losses == "masked"
        allowed = to_device(tags, small.device) if masked else None
        in_crf = None if options.tags_in_losses == "ignored" else tags
        probs = label_probabilities(small, allowed)
        photos = grid_photos(batch.images, size, self.setup.encoder_input, options.boundary)
        smoothed = start_crf(probs, photos, self._crf, in_crf, self._pool)
        valid = None if options.padding == "labelled" else _nearest(batch.valid, size)
        seed = seed_loss(probs, _nearest(batch.labels, size))
        auxiliary = auxiliary_loss(
            match,
            batch.labels,
            temperature=options.auxiliary_temperature,
            allowed=allowed,
            ignored_count=options.auxiliary_mean == "all",
        )
        boundary = boundary_loss(probs, smoothed(), valid)
        parts = {"seed": seed, "boundary": boundary, "auxiliary": auxiliary}
        loss = (
            options.seed_weight * parts["seed"]
            + options.boundary_weight * parts["boundary"]
            + options.auxiliary_weight * parts["auxiliary"]
        )
        return {"loss": loss} | parts

    def supervised_loss(self, batch: CropBatch) -> Mapping[str, Tensor]:
        """``seed`` and ``auxiliary`` with the truth as seeds, over all labels.

        The truth has the edges that ``boundary`` guesses, and the tags that mask labels.
        """
        options, truth = self.options, batch.labels
        assert truth is not None
        match, small = self._match_and_logits(batch.images)
        size = (small.shape[-2], small.shape[-1])
        parts = {
            "seed": seed_loss(label_probabilities(small), _nearest(truth, size)),
            "auxiliary": auxiliary_loss(
                match,
                truth,
                temperature=options.auxiliary_temperature,
                ignored_count=options.auxiliary_mean == "all",
            ),
        }
        seed, auxiliary = parts["seed"], parts["auxiliary"]
        loss = options.seed_weight * seed + options.auxiliary_weight * auxiliary
        return {"loss": loss} | parts

    def _match_and_logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch labels rows columns"], Float[Tensor, "batch labels h w"]]:
        """The match map, and logits on the grid of the losses: that of half a patch."""
        features = self.network.encode(images)
        match, logits = self.network.head(features, self.network.texts())
        size = (2 * features.grid[0], 2 * features.grid[1])
        return match, F.interpolate(logits, size, mode="bilinear", align_corners=False)

    @property
    def crops(self) -> CropOptions:
        """Crops are padded after they are normalised."""
        return CropOptions(
            fill="zero",
            smooth=self.options.crop_scaling == "smooth",
            corner=self.options.small_photos == "corner",
        )

    def parameter_groups(self) -> list[Group]:
        """Head, adapter and CLIP, with their relative learning rates."""
        return self.network.groups()

    def parameter_counts(self) -> tuple[int, int]:
        """The released recipe counts CLIP as frozen, whatever its schedule does to it."""
        return self.network.parameter_counts()

    def save_memory(self) -> bool:
        """The towers are computed again in the backward pass, where they are trained."""
        return self.network.recompute()

    def train_mode(self, mode: bool) -> None:
        """Also of a frozen tower, for its stochastic depth."""
        self.network.train(mode)

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """Logits of the background and of the classes, without those of extra labels."""
        logits = self.network.head(self.network.encode(images), self._texts)[1]
        return logits[:, : self.setup.classes.label_count]

    @cached_property
    def _texts(self) -> Float[Tensor, "labels embed_dim"]:
        """Features of all labels, for inference: they depend on no image."""
        with torch.inference_mode():
            return self.network.texts()

    @cached_property
    def scaled(self) -> PhotoScaler:
        """Each scale is made from the photo, with OpenCV as the released code does.

        The coarsest map of the adapter has half as many patches along each side, so one is not
        enough: the released code fails there.
        """
        scaled, infer = super().scaled, self.setup.infer
        sides: dict[str, Any] = {}
        if infer.short_side is not None:
            sides = {"short_side": infer.short_side, "long_side": infer.long_side}
        return replace(scaled, scales_from="photo", resample="opencv", least_patches=2, **sides)

    @cached_property
    def inference(self) -> MultiScaleInference:
        """Windows are averaged as logits, scales and mirror images as probabilities."""
        infer = self.setup.infer
        return MultiScaleInference(
            self.logits,
            scales=infer.scales,
            average="probabilities",
            grid="output",
            patch=self.encoder.patch,
            mirror_in_batch=False,
            window=infer.window,
            stride=infer.stride,
        )

    def tag_scores(self, photo: Photo, classes: Sequence[int]) -> Scores:
        """Probabilities of the background and of the tags, or of the labels that win somewhere."""
        size = (-(-photo.shape[0] // _STRIDE), -(-photo.shape[1] // _STRIDE))
        if self.options.tags_in_masks == "masked":
            labels = [0, *(index + 1 for index in classes)]
            probs = self.multi_scale(photo, size, labels)[1].cpu().numpy()
            return Scores(probs[1:], probs[0])
        probs = self.multi_scale(photo, size)[1].cpu().numpy()
        winners = [int(label) for label in np.unique(probs.argmax(0)) if label]
        return Scores(probs[winners], probs[0], tuple(label - 1 for label in winners))


def class_texts(setup: Setup[WeakClipOptions]) -> list[str]:
    """What stands after the learnable vectors: the background, the classes, extra labels.

    Classes have their bare names. ``data.prompts`` may put other words in their place; the synonyms
    of the class list, which are meant for other templates, do not.
    """
    classes, replaced = setup.classes, {spelling(name) for name in setup.prompts}
    words = zip(classes.names, classes.prompts, strict=True)
    texts = (prompt if spelling(name) in replaced else name for name, prompt in words)
    return [_BACKGROUND, *(text.replace("_", " ") for text in texts), *setup.options.extra_labels]


def _tags_of(batch: CropBatch, labels: int) -> Bool[Tensor, "batch labels"]:
    """The background and the tags of each image; on the CPU."""
    tags = torch.zeros(len(batch.images), labels, dtype=torch.bool)
    tags[:, 0] = True
    tags[batch.image_index, batch.classes + 1] = True
    return tags


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Every cell takes the value of its first pixel."""
    small = F.interpolate(maps[:, None].float(), size, mode="nearest")[:, 0]
    return small.to(maps.dtype)
