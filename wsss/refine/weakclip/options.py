"""Options of WeakCLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, variant_field
from wsss.config.labels import (
    LEAST_COLOUR_SIGMA,
    MOST_SIGMA,
    MOST_WEIGHT,
    AutoBackend,
    crf_backend_field,
)
from wsss.config.method import Chain, EncoderNeed, MethodOptions


class BoundaryConfig(Section):
    """The CRF of WeakCLIP's boundary loss."""

    backend: AutoBackend = crf_backend_field()
    gaussian_sxy: float = Field(
        3.0, ge=0.5, le=MOST_SIGMA, description="Spatial deviation, smoothness kernel."
    )
    gaussian_compat: float = Field(
        3.0, ge=0, le=MOST_WEIGHT, description="Weight of the smoothness kernel."
    )
    bilateral_sxy: float = Field(
        80.0, ge=0.5, le=MOST_SIGMA, description="Spatial deviation, appearance kernel."
    )
    bilateral_srgb: float = Field(
        13.0, ge=LEAST_COLOUR_SIGMA, le=MOST_SIGMA, description="Colour deviation, grey levels."
    )
    bilateral_compat: float = Field(
        10.0, ge=0, le=MOST_WEIGHT, description="Weight of the appearance kernel."
    )
    iterations: PositiveInt = Field(10, le=1000, description="Mean-field iterations.")
    sigma_unit: Literal["cells", "pixels"] = variant_field(
        published="cells",
        corrected="pixels",
        description=(
            "Unit of the spatial deviations. pixels: of the crop. cells: of the loss grid (two "
            "per patch side), which enlarges them by the size of a cell."
        ),
    )
    image: Literal["sampled", "averaged"] = variant_field(
        published="sampled",
        corrected="averaged",
        description=(
            "How the crop is reduced to the grid. averaged: over each cell. sampled: corner to "
            "corner without smoothing."
        ),
    )


class WeakClipOptions(MethodOptions):
    """WeakCLIP: learnable prompt, pyramid adapter, co-attention matching, text-guided decoder."""

    title: ClassVar[str] = "WeakCLIP"
    needs_seeds: ClassVar[bool] = True
    released: ClassVar[bool] = True
    windows: ClassVar[bool] = True
    published_normalization: ClassVar[Literal["clip", "imagenet"]] = "imagenet"

    prompts: int = Field(8, ge=0, description="Learnable vectors in front of every class name.")
    prompt_std: float = variant_field(
        published=1.0,
        corrected=0.02,
        ge=0,
        description=(
            "Standard deviation of their initial values. CLIP's token embeddings have 0.01 to 0.02."
        ),
    )
    temperature: float = Field(
        0.1,
        gt=0,
        description="Initial value of the learned factors gamma and beta of the co-attention.",
    )
    width: PositiveInt = Field(256, description="Width of the co-attention.")
    depth: PositiveInt = Field(3, description="Layers of each of its two stacks.")
    heads: PositiveInt = Field(4, description="Heads of its attention, a divisor of the width.")
    channels: PositiveInt = Field(256, description="Channels of the decoder.")
    dropout: Share = Field(
        0.1, description="Dropout in the co-attention and before the classifier."
    )
    out_indices: list[PositiveInt] | None = Field(
        None,
        min_length=4,
        max_length=4,
        description=(
            "Blocks, counted from 1, whose outputs feed the pyramid. null = a third, a half, two "
            "thirds and all of the encoder's depth (ViT-B/16: 4, 6, 8, 12)."
        ),
    )
    co_attention: Literal["unchained", "chained"] = variant_field(
        published="unchained",
        corrected="chained",
        description=(
            "unchained: every layer of a stack gets the stack's input and only the last layer's "
            "output is used, so that the others learn nothing."
        ),
    )
    class_token: Literal["once", "twice"] = variant_field(
        published="twice",
        corrected="once",
        description="How often CLIP's class embedding is added to the class token.",
    )
    positions: Literal["once", "twice"] = variant_field(
        published="twice",
        corrected="once",
        description=(
            "How often CLIP's positional table is resized. once: to the image's grid. twice: first "
            "to the grid of the training crop."
        ),
    )
    drop_path: Share = variant_field(
        published=0.1,
        corrected=0.0,
        description="Stochastic depth of CLIP's last block in training. It rises from 0.",
    )
    clip_lr: float = Field(
        0.0, ge=0, description="Learning rate of CLIP's two towers, relative to refine.train.lr."
    )
    adapter_lr: float = variant_field(
        published=0.0,
        corrected=1.0,
        ge=0,
        description="Learning rate of the pyramid adapter, relative to refine.train.lr.",
    )
    zero_lr: Literal["leak", "frozen"] = variant_field(
        published="leak",
        corrected="frozen",
        description=(
            "Meaning of a relative rate of 0. frozen: the weights stay and CLIP has no graph. "
            "leak: the cosine schedule rises from 0 to min_lr, so that they are trained after all."
        ),
    )
    repeat_list: str = variant_field(
        published="train",
        corrected="",
        description=(
            "VOC: images on this list are seen twice per epoch (the released list of 10582 images "
            "repeats the 1464 of train). empty = none."
        ),
    )
    extra_labels: list[str] = Field(
        default_factory=list,
        description=(
            "Further texts that compete with the classes inside the network and are never "
            "predicted. The released COCO checkpoint needs the ten categories without annotations."
        ),
    )
    tags_in_losses: Literal["ignored", "targets", "masked"] = variant_field(
        published="ignored",
        corrected="targets",
        description=(
            "Treatment of labels that are not tags of the image. ignored: they compete like "
            "others. targets: they are left out of the CRF, so that no loss asks for them and the "
            "softmax suppresses them. masked: they are left out of the softmax too, so that "
            "nothing suppresses them in prediction, where tags are unknown."
        ),
    )
    tags_in_masks: Literal["ignored", "masked"] = variant_field(
        published="ignored",
        corrected="masked",
        description=(
            "ignored: pseudo masks may hold labels that are not tags of their image. masked: they "
            "may not."
        ),
    )
    crop_scaling: Literal["opencv", "smooth"] = variant_field(
        published="opencv",
        corrected="smooth",
        description=(
            "Bilinear scaling of the photos of training crops. opencv: of the nearest four pixels. "
            "smooth: of more where a photo shrinks."
        ),
    )
    small_photos: Literal["corner", "anywhere"] = variant_field(
        published="corner",
        corrected="anywhere",
        description=(
            "Where a photo lies that is smaller than the training crop. corner: at the upper left, "
            "so that it is padded right and below. anywhere: at a random place."
        ),
    )
    padding: Literal["labelled", "ignored"] = variant_field(
        published="labelled",
        corrected="ignored",
        description="Whether padding takes part in the boundary loss.",
    )
    seed_weight: float = Field(1.0, ge=0, description="Weight of the seed loss.")
    boundary_weight: float = Field(1.0, ge=0, description="Weight of the boundary loss.")
    boundary: BoundaryConfig = BoundaryConfig()
    auxiliary_weight: float = Field(
        0.4, ge=0, description="Weight of the auxiliary cross-entropy of the match map."
    )
    auxiliary_temperature: float = Field(0.07, gt=0, description="Temperature of that loss.")
    auxiliary_mean: Literal["all", "labelled"] = variant_field(
        published="all",
        corrected="labelled",
        description="Pixels over which that loss is averaged: all, or those with a label.",
    )

    @property
    def trains_clip(self) -> bool:
        """Whether CLIP's own weights learn."""
        return self.clip_lr > 0 or self.zero_lr == "leak"

    @property
    def encoder_blocks(self) -> Mapping[str, int | None]:
        """Those that feed the pyramid."""
        return {f"out_indices.{i}": block for i, block in enumerate(self.out_indices or ())}

    @property
    def encoder_needs(self) -> frozenset[EncoderNeed]:
        """Prompts; and gradients of the image tower, or its stochastic depth."""
        if self.trains_clip or self.drop_path:
            return frozenset({"prompts", "gradients"})
        return frozenset({"prompts"})

    def cross_checks(self, config: Chain) -> list[str]:
        """The network's shape, the windows and the seeds."""
        errors = []
        if self.width % self.heads:
            errors.append("heads must divide width")
        if self.out_indices and sorted(set(self.out_indices)) != self.out_indices:
            errors.append("out_indices must rise, e.g. [4, 6, 8, 12]")
        if config.infer.scores != "decoder":
            errors.append("infer.scores: cam is for weclip and excel; set decoder")
        if config.infer.stride and (
            config.infer.window is None or config.infer.stride > config.infer.window
        ):
            errors.append("infer.stride must be at most infer.window, so that windows meet")
        if min(config.seeds.values) <= 0:
            errors.append("seeds.values must be positive")
        return errors
