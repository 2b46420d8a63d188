"""The section on WeakCLIP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share, variant_field


class BoundaryConfig(Section):
    """The CRF of WeakCLIP's boundary loss."""

    gaussian_sxy: float = Field(3.0, gt=0, description="Spatial deviation, smoothness kernel.")
    gaussian_compat: float = Field(3.0, ge=0, description="Weight of the smoothness kernel.")
    bilateral_sxy: float = Field(80.0, gt=0, description="Spatial deviation, appearance kernel.")
    bilateral_srgb: float = Field(13.0, gt=0, description="Colour deviation, grey levels.")
    bilateral_compat: float = Field(10.0, ge=0, description="Weight of the appearance kernel.")
    iterations: PositiveInt = Field(10, description="Mean-field iterations.")
    sigmas: Literal["auto", "cells", "pixels"] = variant_field(
        published="cells",
        corrected="pixels",
        description=(
            "Unit of the spatial deviations: pixels of the crop, or cells of the grid of the loss "
            "(two a patch side), which stretches them by the size of a cell."
        ),
    )
    image: Literal["auto", "sampled", "averaged"] = variant_field(
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
    prompt_std: float | Literal["auto"] = variant_field(
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
    co_attention: Literal["auto", "unchained", "chained"] = variant_field(
        published="unchained",
        corrected="chained",
        description=(
            "unchained: every layer of a stack is given the stack's input and only the last one's "
            "result is used, so that the others learn nothing."
        ),
    )
    class_token: Literal["auto", "once", "twice"] = variant_field(
        published="twice",
        corrected="once",
        description="How often CLIP's class embedding enters the class token.",
    )
    positions: Literal["auto", "once", "twice"] = variant_field(
        published="twice",
        corrected="once",
        description=(
            "How often CLIP's positional table is resized: to an image's grid, or before that to "
            "the grid of the training crop."
        ),
    )
    drop_path: Share | Literal["auto"] = variant_field(
        published=0.1,
        corrected=0.0,
        description="Stochastic depth of CLIP's last block while training, rising from 0.",
    )
    clip_lr: float = Field(
        0.0, ge=0, description="Learning rate of CLIP's two towers, relative to refine.train.lr."
    )
    adapter_lr: float | Literal["auto"] = variant_field(
        published=0.0,
        corrected=1.0,
        description="Learning rate of the pyramid adapter, relative to refine.train.lr.",
    )
    zero_lr: Literal["auto", "leak", "frozen"] = variant_field(
        published="leak",
        corrected="frozen",
        description=(
            "What a relative rate of 0 means. frozen: nothing is learned and CLIP has no graph; "
            "leak: the cosine schedule leads from 0 up to min_lr, so that it is trained after all."
        ),
    )
    repeat_list: str = variant_field(
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
    tags_in_losses: Literal["auto", "ignored", "targets", "masked"] = variant_field(
        published="ignored",
        corrected="targets",
        description=(
            "Labels that are no tag of the image: ignored: they compete like others; targets: they "
            "are left out of the CRF, so that no loss asks for them and the softmax keeps them "
            "down; masked: out of the softmax, too, so that nothing keeps them down where tags are "
            "not known (prediction)."
        ),
    )
    tags_in_masks: Literal["auto", "ignored", "masked"] = variant_field(
        published="ignored",
        corrected="masked",
        description="Whether pseudo masks may hold labels that are no tag of their image.",
    )
    padding: Literal["auto", "labelled", "ignored"] = variant_field(
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
    auxiliary_mean: Literal["auto", "all", "known"] = variant_field(
        published="all",
        corrected="known",
        description="Pixels over which its mean runs: with or without those that have no seed.",
    )
