"""Sections on the refiners: which one, its training, what is asked of it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, variant_field
from wsss.config.refiners import ExcelConfig, WeClipConfig
from wsss.config.weakclip import WeakClipConfig

Method = Literal["none", "weclip", "weakclip", "excel"]


METHODS: frozenset[str] = frozenset(get_args(Method))
"""Each but ``none`` has a section of its name."""


class TrainingConfig(Section):
    """How a refiner is trained: crops, AdamW, linear warm-up, decay."""

    iterations: PositiveInt = Field(400, description="Training steps.")
    batch: PositiveInt = Field(4, description="Crops a step.")
    crop: PositiveInt = Field(
        64, description="Side of the square training crop, pixels; a multiple of the patch."
    )
    short_side: PositiveInt | None = Field(
        None, description="Scale images to this short side first; null = their own size."
    )
    scale_range: tuple[float, float] = Field(
        (0.75, 1.5), description="Random scale on top of that."
    )
    max_share: Share = Field(
        1.0,
        description=(
            "Redraw a crop, up to ten times, while one label has a larger share of what is known "
            "of it; 1 = take every crop. For refiners that learn from hard labels."
        ),
    )
    photometric: bool = Field(False, description="Random brightness, contrast, saturation and hue.")
    lr: float = Field(2e-3, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay.")
    warmup: int = Field(50, ge=0, description="Steps of linear warm-up.")
    schedule: Literal["poly", "cosine"] = Field(
        "poly", description="Decay of the learning rate: polynomial to 0, or cosine to min_lr."
    )
    power: float = Field(1.0, ge=0, description="Exponent of the polynomial decay.")
    min_lr: float = Field(0.0, ge=0, description="Learning rate at the end of the cosine.")
    checkpoint_every: PositiveInt = Field(200, description="Steps between resumable states.")


class RefineConfig(Section):
    """The refiner trained on the CAMs."""

    method: Method = Field(
        "none",
        description=(
            "none: the CAM is handed on as it is; weclip: WeCLIP, trained on the CAMs; weakclip: "
            "WeakCLIP, trained on seeds made from the CAMs (section seeds); excel: ExCEL, trained "
            "on patch-text CAMs (section cams.patch_text)."
        ),
    )
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description=(
            "Do not train: import this file, a checkpoint that the authors of weakclip or excel "
            "released (.pth, .safetensors) or one of an earlier run. null = train."
        ),
    )
    train: TrainingConfig = TrainingConfig()
    weclip: WeClipConfig = WeClipConfig()
    weakclip: WeakClipConfig = WeakClipConfig()
    excel: ExcelConfig = ExcelConfig()

    def effective(self) -> dict[str, Any]:
        """Without the options of the methods that are not configured."""
        return self.model_dump(mode="json", exclude=set(METHODS - {self.method}))

    @property
    def is_trained(self) -> bool:
        """Whether it is a trained one, here or elsewhere, which also predicts all labels itself."""
        return self.method != "none"

    @property
    def trains(self) -> bool:
        """Whether this run trains it."""
        return self.is_trained and self.checkpoint is None

    @property
    def needs_seeds(self) -> bool:
        """Whether this run trains it on hard seeds, which the stage seeds makes."""
        return self.trains and self.method == "weakclip"


class InferConfig(Section):
    """What is asked of the trained refiner."""

    scores: Literal["decoder", "cam", "static_cam"] = Field(
        "decoder",
        description=(
            "Class scores for the pseudo masks: decoder = its own probabilities of the image's "
            "tags; cam = the CAM refined with what it learned (weclip, excel); static_cam = the "
            "uncalibrated CAM, refined so (excel: the pseudo masks of its training log)."
        ),
    )
    scales: list[float] = Field(
        [1.0, 0.75],
        min_length=1,
        description=(
            "Scales, each also mirrored; weclip and excel average logits over them, weakclip "
            "probabilities."
        ),
    )
    long_side: int | None = Field(
        None, description="Scale images to this long side first; null = as clip.long_side."
    )
    short_side: PositiveInt | None = Field(
        None, description="weakclip: scale images to this short side instead."
    )
    window: PositiveInt | None = Field(
        None,
        description=(
            "weakclip: look at larger images through a sliding window of this side, pixels; "
            "null = at all of an image at once."
        ),
    )
    stride: PositiveInt | None = Field(
        None, description="weakclip: pixels from window to window; null = as the window."
    )
    grid: Literal["auto", "floored", "aligned"] = variant_field(
        published="floored",
        corrected="aligned",
        description=(
            "floored: a remainder of up to a patch is cut off, yet logits are stretched over the "
            "whole image; aligned: the image is resized to whole patches."
        ),
    )
    dropout: Literal["auto", "on", "off"] = variant_field(
        published="on",
        corrected="off",
        description="weclip: on = in training mode while it is evaluated, as released.",
    )
    mirror_first: bool | Literal["auto"] = Field(
        "auto",
        description=(
            "weclip, excel: whether several scales mirror scale 1, too. auto = true, or false "
            "where released ExCEL leaves it out (published, VOC)."
        ),
    )
    crf: bool = Field(
        True, description="Also predict with a dense CRF (settings of masks.crf), as own rows."
    )
