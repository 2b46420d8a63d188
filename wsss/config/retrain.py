"""The sections on the supervised segmenter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from wsss.config.base import TRAINING_THREADS, Scales, Section, Share, chain_field
from wsss.config.labels import CrfConfig, CrfLabels, crf_labels_field

BatchNorm = Literal["trained", "fixed_affine", "frozen"]

RECIPE_BATCH_NORM: dict[str, BatchNorm] = {
    "deeplabv1-resnet38": "fixed_affine",
    "deeplabv2-resnet38": "fixed_affine",
    "deeplabv2-resnet101": "frozen",
}
"""Batch normalisation of the published recipes, by ``retrain.model``; the others train it."""
RECIPE_INIT: dict[str, str] = {
    **{f"segformer-b{size}": f"mit-b{size}" for size in range(6)},
    "deeplabv3plus-r50": "resnet50-v1c",
    "deeplabv3plus-r101": "resnet101-v1c",
    "deeplabv1-resnet38": "random",
    "deeplabv2-resnet38": "random",
    "deeplabv2-resnet101": "resnet101",
    "segmenter-deit-s": "deit-s",
    "clip-vit": "clip",
}
"""What ``init: auto`` means, by ``retrain.model``; weights of ResNet38 need a file."""


SMALLEST_SIDE = 32
"""Pixels; below it the strided attention of SegFormer's first stage has no key left."""
PATCHES = {"segmenter-deit-s": 16}
"""Side of a network's own patches, pixels, by ``retrain.model``."""


class RetrainConfig(Section):
    """The supervised segmenter, trained on the `train` masks through mmsegmentation."""

    enabled: bool = Field(
        True, description="Train the segmenter. false ends the chain at the pseudo masks."
    )
    model: Literal[
        "segformer-b0",
        "segformer-b1",
        "segformer-b2",
        "segformer-b3",
        "segformer-b4",
        "segformer-b5",
        "deeplabv3plus-r50",
        "deeplabv3plus-r101",
        "deeplabv1-resnet38",
        "deeplabv2-resnet38",
        "deeplabv2-resnet101",
        "segmenter-deit-s",
        "clip-vit",
    ] = Field(
        "segformer-b0",
        description="Architecture. docs/reference/segmenters.md compares them.",
    )
    corrected: str = Field(
        "",
        description=(
            "Folder of corrected masks, PNGs named as the images (`wsss import-masks` writes it). "
            "Training images that have one learn from it, the others from their pseudo mask. The "
            "segmenter is then labelled as of mixed supervision. empty = none."
        ),
    )
    init: str = chain_field(
        "mit-b0",
        description=(
            "Weights of the backbone to start from: random, clip, a name or a path. clip: those of "
            "section clip, for clip-vit. A name is downloaded: mit-b0 … mit-b5, resnet50-v1c, "
            "resnet101-v1c, resnet101, deit-s. A path is that of a checkpoint (.safetensors, "
            ".pth, for ResNet38 also MXNet's .params). auto = the network's own name, clip for "
            "clip-vit, random for ResNet38."
        ),
    )
    batch_norm: BatchNorm = chain_field(
        "trained",
        description=(
            "Batch normalisation. trained: learns scale and shift, uses batch statistics. "
            "fixed_affine: learns nothing, uses batch statistics. frozen: learns nothing, and the "
            "backbone uses its running statistics. auto = as in the network's recipe, or trained "
            "where init is random."
        ),
    )
    crop: PositiveInt = Field(512, description="Side of the square training crop, pixels.")
    short_side: PositiveInt | None = Field(
        None, description="Scale images to this short side first. null = their own size."
    )
    scale_range: tuple[float, float] = Field(
        (0.5, 2.0), description="Random scale of the image before the crop, on top of that."
    )
    scale_choices: list[PositiveFloat] = Field(
        default_factory=list,
        description="Draw the random scale from this list instead of scale_range, if any.",
    )
    scale_filter: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="Filter that scales the image. The mask takes the nearest pixel."
    )
    cat_max_ratio: Share = Field(
        0.75,
        description=(
            "Draw a crop again, up to ten times, while one label covers a larger share of its "
            "labelled pixels. 1 = accept every crop."
        ),
    )
    color: Literal["photometric", "hsv", "none"] = Field(
        "photometric",
        description=(
            "Random colours. photometric: brightness, contrast, saturation and hue, as in "
            "mmsegmentation. hsv: hue, saturation and value shifted by up to 10 of 255."
        ),
    )
    batch: PositiveInt = Field(8, description="Global batch size, whatever the number of devices.")
    iterations: PositiveInt = Field(8000, description="Training steps.")
    lr: float = Field(
        6e-5,
        gt=0,
        description="Peak learning rate (AdamW for SegFormer and clip-vit, SGD for the others).",
    )
    clip_lr: float = Field(
        0.1,
        ge=0,
        description=(
            "clip-vit: learning rate of the CLIP's tower, relative to lr. 0 = it keeps its weights "
            "and only the decoder learns, which takes half the time."
        ),
    )
    clip_stem: bool = Field(
        True,
        description=(
            "clip-vit: the decoder also sees the image itself, and finds edges. false: it sees "
            "the patches alone, learns in half the time, and leaves the edges to a CRF. Prefer "
            "false where masks.min_score leaves no labels near the edges."
        ),
    )
    label_smoothing: Share = Field(
        0.0,
        description=(
            "Share of each target that is spread over all labels. Probabilities then are less "
            "sure of wrong pseudo labels. 0 = off."
        ),
    )
    warmup: int = Field(500, ge=0, description="Steps of linear warm-up.")
    threads: PositiveInt = Field(2, le=1024, description=TRAINING_THREADS)
    checkpoint_every: PositiveInt = Field(500, description="Steps between resumable checkpoints.")

    @property
    def uses_clip(self) -> bool:
        """Whether the backbone is the image tower of section clip."""
        return self.model == "clip-vit"


def crop_problem(model: str, crop: int, patch: int | None = None) -> str:
    """What is wrong with a training crop, and what fits; empty where it fits.

    Args:
        model: of ``retrain.model``.
        crop: side, pixels.
        patch: side of the patches of the section ``clip``'s tower, pixels, for ``clip-vit``.
    """
    patch = patch or PATCHES.get(model, 1)
    if crop < SMALLEST_SIDE:
        return f"retrain.crop is {crop} pixels, expected at least {SMALLEST_SIDE}"
    if crop % patch:
        near = max(-(-SMALLEST_SIDE // patch) * patch, crop - crop % patch)
        return (
            f"retrain.crop is {crop} pixels; {model} expects a multiple of its patch, {patch}, "
            f"e.g. {near}"
        )
    return ""


class PredictConfig(Section):
    """Prediction with the segmenter."""

    scales: Scales = Field(
        [0.75, 1.0, 1.25], description="Scales of the multi-scale + flip protocol."
    )
    average: Literal["probabilities", "logits"] = Field(
        "probabilities", description="What is averaged over scales and mirroring."
    )
    window: PositiveInt | None = Field(
        None,
        description=(
            "Side of the sliding window over the scaled image, pixels. Logits of overlapping "
            "windows are averaged. null = the whole image at once."
        ),
    )
    stride: PositiveInt | None = Field(
        None, description="Pixels between windows. null = the window's side."
    )
    crf: bool = Field(True, description="Also predict with a dense CRF, in separate rows.")
    crf_labels: CrfLabels = crf_labels_field()
    crf_settings: CrfConfig | None = Field(
        None,
        description=(
            "Settings of that CRF, with the keys of masks.crf (missing ones take the defaults). "
            "null = those of masks.crf."
        ),
    )
