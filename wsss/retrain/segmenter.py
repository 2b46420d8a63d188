"""A trained segmenter, which its checkpoint describes completely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.checkpoint_header import checkpoint_facts
from wsss.artifacts.errors import ArtifactError
from wsss.clip.errors import ClipLoadError, UnsupportedEncoderError
from wsss.compute.device import pick_device
from wsss.compute.packed_rows import to_device
from wsss.compute.precision import autocast
from wsss.config.retrain import SMALLEST_SIDE, PredictConfig, RetrainConfig
from wsss.data.images.label_png import voc_palette
from wsss.data.manifest import Sample
from wsss.refine.inference import MultiScaleInference, check_window
from wsss.retrain.architecture import ClipTower, build_model, model_config
from wsss.retrain.attention import attention_bytes, refuse_too_large
from wsss.retrain.stripes import StripedInference


class SegmenterFacts(BaseModel):
    """What a checkpoint says about its network, next to the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """As `retrain.model`."""
    crop: int
    """Side of the training crop, pixels."""
    labels: tuple[str, ...]
    """Names, background first."""
    palette: tuple[tuple[int, int, int], ...]
    """RGB colour of each label."""
    scales: tuple[float, ...]
    """This and the next three are as in the section `predict` of the run, when it trained."""
    average: Literal["probabilities", "logits"]
    window: int | None
    stride: int | None
    clip: ClipTower | None = None
    """The tower of `clip-vit`."""
    clip_stem: bool = True
    """As `retrain.clip_stem`."""


def segmenter_facts(
    network: Any,
    retrain: RetrainConfig,
    predict: PredictConfig,
    labels: tuple[str, ...],
    clip: ClipTower | None = None,
) -> SegmenterFacts:
    """What the checkpoint of a network says of it.

    Args:
        network: as trained, or to be trained.
        predict: how its run predicts: whoever loads the checkpoint predicts alike.
        labels: names, background first.
        clip: the tower of `clip-vit`.

    Raises:
        ValueError: ``predict.window`` does not suit the network.
    """
    check_window(predict.window, _patch(network), SMALLEST_SIDE)
    return SegmenterFacts(
        model=retrain.model,
        crop=retrain.crop,
        labels=labels,
        palette=voc_palette()[: len(labels)],
        scales=tuple(predict.scales),
        average=predict.average,
        window=predict.window,
        stride=predict.stride,
        clip=clip,
        clip_stem=retrain.clip_stem,
    )


def _patch(network: Any) -> tuple[int, int]:
    side: int = getattr(network.backbone, "patch_size", 1)
    return side, side


class Segmenter:
    """A trained network in evaluation mode.

    Scales, mirroring and windows are those of mmsegmentation: bilinear scaling of the image, logits
    scaled back to the image, softmax, mean; or, where logits are averaged, mean and then softmax.

    Args:
        model: an encoder-decoder of mmsegmentation with its weights.

    Raises:
        ValueError: the window is no multiple of the network's patch.
    """

    def __init__(self, model: nn.Module, facts: SegmenterFacts, device: torch.device) -> None:
        self._model: Any = model.to(device).eval()
        self.facts, self.device = facts, device
        patch = _patch(self._model)
        self._patch = patch[0]
        head: Any = self._model.decode_head
        self._inference = MultiScaleInference(
            self._logits,
            scales=facts.scales,
            average=facts.average,
            grid="output",
            patch=patch,
            window=facts.window,
            stride=facts.stride,
            window_batch=1,
            smallest=SMALLEST_SIDE,
        )
        self._striped = StripedInference(
            self._grid_logits,
            self._normalised,
            align_corners=head.align_corners,
            scales=facts.scales,
            average=facts.average,
            patch=patch,
            window=facts.window,
            stride=facts.stride,
            smallest=SMALLEST_SIDE,
        )

    def probabilities(
        self, images: UInt8[np.ndarray, "batch height width 3"]
    ) -> dict[str, Float[Tensor, "batch labels height width"]]:
        """Softmax at image size: ``single`` (scale 1) and ``multi`` (all scales and mirroring).

        Args:
            images: RGB.
        """
        pixels = to_device(torch.from_numpy(np.ascontiguousarray(images)), self.device)
        levels = pixels.permute(0, 3, 1, 2).float()  # (B, H, W, 3) -> (B, 3, H, W)
        height, width = levels.shape[2:]

        def view(scale: float) -> Float[Tensor, "batch 3 _ _"]:
            scaled = [max(1, int(side * scale + 0.5)) for side in (height, width)]
            pixels = F.interpolate(levels, scaled, mode="bilinear") if scale != 1.0 else levels
            return self._normalised(pixels)

        size = (height, width)
        return {
            "single": self._inference.single(view, size),
            "multi": self._inference.probabilities(view, size)[1],
        }

    def attention_bytes(self, height: int, width: int) -> int:
        """Memory for the largest attention that a photo of this size needs, over all scales."""
        largest = 0
        for scale in {1.0, *self.facts.scales}:
            sides = (max(SMALLEST_SIDE, int(side * scale + 0.5)) for side in (height, width))
            padded = (side + -side % self._patch for side in sides)
            entering = [min(side, self.facts.window or side) for side in padded]
            largest = max(largest, attention_bytes(self._model.backbone, *entering))
        return largest

    def check_sizes(self, samples: Sequence[Sample]) -> None:
        """Refuse photos whose attention does not fit into memory, before the work starts.

        Raises:
            ValueError: names the largest, and windows that fit.
        """
        window = max(SMALLEST_SIDE, self.facts.crop)
        window += -window % self._patch
        remedy = f"set predict.window, e.g. to {window}, and predict.stride, e.g. to"
        refuse_too_large(samples, self.attention_bytes, f"{remedy} {2 * window // 3}")

    def stripes(
        self, photo: UInt8[np.ndarray, "height width 3"], *, multi: bool = True
    ) -> Iterator[tuple[slice, Float[Tensor, "labels rows width"]]]:
        """`probabilities` of a large photo in stripes of rows; they differ in the last bits.

        Args:
            photo: RGB.
            multi: see `StripedInference.stripes`.
        """
        pixels = to_device(torch.from_numpy(np.ascontiguousarray(photo)), self.device)
        return self._striped.stripes(pixels, len(self.facts.labels), multi=multi)

    def _normalised(self, levels: Float[Tensor, "batch 3 _ _"]) -> Float[Tensor, "batch 3 _ _"]:
        preprocessor = self._model.data_preprocessor
        normalised: Tensor = (levels - preprocessor.mean) / preprocessor.std
        return normalised

    def _grid_logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels _ _"]:
        """Logits on the grid of the head, which `_logits` enlarges."""
        with autocast(self.device):
            logits: Tensor = self._model.decode_head(self._model.extract_feat(images))
        return logits.float()

    def _logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels height width"]:
        """Logits at the size of the input, normalised."""
        shape = tuple(images.shape[2:])
        with autocast(self.device):
            logits: Tensor = self._model.encode_decode(
                images, [{"img_shape": shape} for _ in images]
            )
        return logits.float()


def load_segmenter(checkpoint: Path, device: str = "auto", **settings: Any) -> Segmenter:
    """Build the network of a checkpoint with its weights, labels and settings.

    Args:
        checkpoint: what the stage `retrain` wrote.
        device: where it runs; ``auto`` takes a GPU if there is one.
        settings: ``scales``, ``average``, ``window`` or ``stride``, in place of those of the
            checkpoint.

    Raises:
        ArtifactError: the checkpoint is missing or damaged, or holds no segmenter.
        ValueError: the window does not suit the network.
    """
    tensors, provenance = load_checkpoint(checkpoint)
    try:
        facts = SegmenterFacts.model_validate(checkpoint_facts(checkpoint) | settings)
    except ValidationError as error:
        if provenance.stage.startswith("refine_"):
            raise ArtifactError(
                f"{checkpoint}: holds no segmenter but a refiner; wsss.load_refiner reads it"
            ) from None
        raise ArtifactError(
            f"{checkpoint}: holds no segmenter, or one of another version ({error.error_count()} "
            "facts differ); run the stage retrain again"
        ) from None
    sizes: dict[str, Any] = {"labels": len(facts.labels), "crop": facts.crop}
    try:
        config = model_config(facts.model, **sizes, clip=facts.clip, clip_stem=facts.clip_stem)
        model = build_model(config)
    except (ClipLoadError, UnsupportedEncoderError) as error:
        raise ArtifactError(f"{checkpoint}: {error}") from None
    model.load_state_dict(tensors)
    return Segmenter(model, facts, pick_device(device))
