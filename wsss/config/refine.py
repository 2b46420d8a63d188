"""Sections on the refiners: their training, their options, what is asked of them."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, departure

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


class HeadConfig(Section):
    """What WeCLIP and ExCEL share: fusion, decoder, affinity loss, labels of crops."""

    width: PositiveInt = Field(64, description="Channels of the fused features (published: 256).")
    depth: PositiveInt = Field(3, description="Blocks of the decoder.")
    heads: PositiveInt = Field(8, description="Heads of a decoder block; they divide the width.")
    dropout: Share = Field(0.1, description="Share of fused channels zeroed in training.")
    affinity_weight: float = Field(0.1, ge=0, description="Weight of the affinity loss.")
    affinity_radius: PositiveInt = Field(
        8, description="Affinity loss: patches at most this many rows and columns apart."
    )
    crop_gate: Share = Field(0.5, description="See crop_cams: gated and located.")
    padding: Literal["auto", "labelled", "ignored"] = departure(
        published="labelled",
        corrected="ignored",
        description="Whether the padding of a crop that reaches over the image is learned from.",
    )
    unsure: Literal["auto", "labelled", "ignored"] = departure(
        published="labelled",
        corrected="ignored",
        description="Whether pixels with a largest class score in unsure_band are learned from.",
    )
    unsure_band: tuple[Share, Share] = Field(
        (0.4, 0.6),
        description="Class scores, after pixel-adaptive refinement, that are unsure.",
    )


class WeClipConfig(HeadConfig):
    """WeCLIP: frozen features of all blocks, fusion, transformer decoder, refinement module."""

    affinity: Literal["auto", "raw", "cosine"] = departure(
        published="raw",
        corrected="cosine",
        description=(
            "Learned affinity, a sigmoid of dot products of fused features: raw saturates early, "
            "cosine divides by their lengths and a temperature."
        ),
    )
    temperature: float = Field(0.1, gt=0, description="Temperature of affinity: cosine.")
    rfm_start: int = Field(
        200,
        ge=0,
        description=(
            "Training steps before the refinement module takes part in the pseudo labels (named "
            "15000 for VOC, 40000 for COCO; as released validation counts, so 9144 for VOC)."
        ),
    )
    rfm_blocks: PositiveInt = Field(
        6, description="Last blocks among which the refinement module chooses (VOC 6, COCO 10)."
    )
    rfm_distance: Literal["auto", "absolute", "signed"] = departure(
        published="signed",
        corrected="absolute",
        description=(
            "Distance of a block's attention from the learned affinity: signed sums cancel, so "
            "that the affinity has no say in the choice."
        ),
    )
    crop_cams: Literal["auto", "crop", "gated", "located", "image"] = departure(
        published="crop",
        corrected="located",
        description=(
            "CAMs of a training crop. crop: Grad-CAM of the crop for every tag of the image, "
            "whether the crop shows it or not; gated: pixels of a tag whose probability on the "
            "crop is below crop_gate of that on the image are not learned from; located: those of "
            "a tag of which the image's CAM nowhere on the crop reaches crop_gate; image: the "
            "image's CAM, cut."
        ),
    )


class ExcelConfig(HeadConfig):
    """ExCEL: frozen features, fusion, decoder, and CAMs calibrated by what they learn (LVC).

    The patch-text CAM itself is set in ``cams.patch_text``, whatever ``cams.source`` is.
    """

    features: Literal["auto", "aliased", "clean"] = departure(
        published="aliased",
        corrected="clean",
        description=(
            "What is fused. clean: the output of every block; aliased: an in-place slip puts the "
            "calibrated stream in place of the block before the calibrated ones, and the state "
            "before the next block's MLP in place of the calibrated ones but the last."
        ),
    )
    relation_scale: float = Field(
        3.0, gt=0, description="Factor of the centred cosines between fused features."
    )
    relation_mean: Literal["auto", "batch", "image"] = departure(
        published="batch",
        corrected="image",
        description=(
            "Mean that is taken off those cosines: of the batch, so that an image depends on its "
            "neighbours, or of each image."
        ),
    )
    relation_dropout: Literal["auto", "on", "off"] = departure(
        published="on",
        corrected="off",
        description=(
            "Whether the relation that calibrates the CAM is made of features with dropout while "
            "training."
        ),
    )
    lvc_start: int = Field(
        200,
        ge=0,
        description=(
            "Training steps with the static CAM, before the learned relation calibrates it and "
            "its affinity (published: VOC 14000, COCO 30000)."
        ),
    )
    lvc_blocks: PositiveInt = Field(
        6, description="Last blocks among which the affinity of the dynamic CAM chooses."
    )
    block_distance: Literal["auto", "absolute", "signed"] = departure(
        published="signed",
        corrected="absolute",
        description=(
            "Distance of a block's attention from the learned affinity: signed sums cancel, so "
            "that the affinity has no say in the choice."
        ),
    )
    own_labels_start: int | None = Field(
        None,
        ge=0,
        description=(
            "Training step from which the affinity loss takes its labels from the decoder's own "
            "prediction; null = never (published: VOC 24000, COCO never)."
        ),
    )
    crop_cams: Literal["auto", "crop", "gated", "located", "image"] = departure(
        published="crop",
        corrected="located",
        description=(
            "CAMs of a training crop. crop: for every tag of the image, whether the crop shows it "
            "or not; gated: pixels of a tag whose probability on the crop is below crop_gate of "
            "that on the image are not learned from; located: those of a tag of which the image's "
            "CAM nowhere on the crop reaches crop_gate; image: before lvc_start the image's CAM, "
            "cut, and from then on as located."
        ),
    )


class BoundaryConfig(Section):
    """The CRF of WeakCLIP's boundary loss."""

    gaussian_sxy: float = Field(3.0, gt=0, description="Spatial deviation, smoothness kernel.")
    gaussian_compat: float = Field(3.0, ge=0, description="Weight of the smoothness kernel.")
    bilateral_sxy: float = Field(80.0, gt=0, description="Spatial deviation, appearance kernel.")
    bilateral_srgb: float = Field(13.0, gt=0, description="Colour deviation, grey levels.")
    bilateral_compat: float = Field(10.0, ge=0, description="Weight of the appearance kernel.")
    iterations: PositiveInt = Field(10, description="Mean-field iterations.")
    sigmas: Literal["auto", "cells", "pixels"] = departure(
        published="cells",
        corrected="pixels",
        description=(
            "Unit of the spatial deviations: pixels of the crop, or cells of the grid of the loss "
            "(two a patch side), which stretches them by the size of a cell."
        ),
    )
    image: Literal["auto", "sampled", "averaged"] = departure(
        published="sampled",
        corrected="averaged",
        description=(
            "How the crop is reduced to the grid: averaged over each cell, or sampled corner to "
            "corner without smoothing."
        ),
    )


class WeakClipConfig(Section):
    """WeakCLIP: learnable prompt, pyramid adapter, co-attention matching, text-guided decoder."""

    prompts: int = Field(8, ge=0, description="Learnable vectors in front of every class name.")
    prompt_std: float | Literal["auto"] = departure(
        published=1.0,
        corrected=0.02,
        description="Deviation of their start; token embeddings of CLIP have about 0.01 to 0.02.",
    )
    temperature: float = Field(
        0.1,
        gt=0,
        description="Start of the learned factors of what co-attention changes (gamma and beta).",
    )
    width: PositiveInt = Field(64, description="Width of the co-attention (published: 256).")
    depth: PositiveInt = Field(3, description="Layers of each of its two stacks.")
    heads: PositiveInt = Field(4, description="Heads of its attention; they divide the width.")
    channels: PositiveInt = Field(64, description="Channels of the decoder (published: 256).")
    dropout: Share = Field(0.1, description="Of the co-attention and before the classifier.")
    taps: list[PositiveInt] | None = Field(
        None,
        min_length=4,
        max_length=4,
        description=(
            "Blocks, counted from 1, whose outputs the pyramid is made of; null = a third, a half, "
            "two thirds and all of the encoder's depth (ViT-B/16: 4, 6, 8, 12)."
        ),
    )
    co_attention: Literal["auto", "unchained", "chained"] = departure(
        published="unchained",
        corrected="chained",
        description=(
            "unchained: every layer of a stack is given the stack's input and only the last one's "
            "result is used, so that the others learn nothing."
        ),
    )
    class_token: Literal["auto", "once", "twice"] = departure(
        published="twice",
        corrected="once",
        description="How often CLIP's class embedding enters the class token.",
    )
    positions: Literal["auto", "once", "twice"] = departure(
        published="twice",
        corrected="once",
        description=(
            "How often CLIP's positional table is resized: to an image's grid, or before that to "
            "the grid of the training crop."
        ),
    )
    drop_path: Share | Literal["auto"] = departure(
        published=0.1,
        corrected=0.0,
        description="Stochastic depth of CLIP's last block while training, rising from 0.",
    )
    clip_lr: float = Field(
        0.0, ge=0, description="Learning rate of CLIP's two towers, relative to refine.train.lr."
    )
    adapter_lr: float | Literal["auto"] = departure(
        published=0.0,
        corrected=1.0,
        description="Learning rate of the pyramid adapter, relative to refine.train.lr.",
    )
    zero_lr: Literal["auto", "leak", "frozen"] = departure(
        published="leak",
        corrected="frozen",
        description=(
            "What a relative rate of 0 means. frozen: nothing is learned and CLIP has no graph; "
            "leak: the cosine schedule leads from 0 up to min_lr, so that it is trained after all."
        ),
    )
    repeat_list: str = departure(
        published="train",
        corrected="",
        description=(
            "VOC: images on this list too come twice an epoch (the released list of 10582 has the "
            "1464 of train added to it); empty = none."
        ),
    )
    extra_labels: list[str] = Field(
        default_factory=list,
        description=(
            "Further texts that compete with the classes inside the network and are never an "
            "answer. Released for COCO: the ten categories without annotations, which its "
            "checkpoint needs."
        ),
    )
    tags_in_losses: Literal["auto", "ignored", "targets", "masked"] = departure(
        published="ignored",
        corrected="targets",
        description=(
            "Labels that are no tag of the image: ignored: they compete like others; targets: they "
            "are left out of the CRF, so that no loss asks for them and the softmax keeps them "
            "down; masked: out of the softmax, too, so that nothing keeps them down where tags are "
            "not known (prediction)."
        ),
    )
    tags_in_masks: Literal["auto", "ignored", "masked"] = departure(
        published="ignored",
        corrected="masked",
        description="Whether pseudo masks may hold labels that are no tag of their image.",
    )
    padding: Literal["auto", "labelled", "ignored"] = departure(
        published="labelled",
        corrected="ignored",
        description="Whether padding takes part in the boundary loss.",
    )
    seed_weight: float = Field(1.0, ge=0, description="Weight of the seed loss.")
    boundary_weight: float = Field(1.0, ge=0, description="Weight of the boundary loss.")
    boundary: BoundaryConfig = BoundaryConfig()
    auxiliary_weight: float = Field(
        0.4, ge=0, description="Weight of the cross-entropy of the match map."
    )
    auxiliary_temperature: float = Field(0.07, gt=0, description="Its temperature.")
    auxiliary_mean: Literal["auto", "all", "known"] = departure(
        published="all",
        corrected="known",
        description="Pixels over which its mean runs: with or without those that have no seed.",
    )


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
    grid: Literal["auto", "floored", "aligned"] = departure(
        published="floored",
        corrected="aligned",
        description=(
            "floored: a remainder of up to a patch is cut off, yet logits are stretched over the "
            "whole image; aligned: the image is resized to whole patches."
        ),
    )
    dropout: Literal["auto", "on", "off"] = departure(
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
