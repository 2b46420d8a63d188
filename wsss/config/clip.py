"""The sections on the frozen encoders: CLIP, and DINOv2 beside it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from wsss.config.base import Section, chain_field, variant_field
from wsss.config.paths import expand_path

_WEIGHT_FILES = frozenset({".safetensors", ".pt", ".pth", ".bin"})


class ClipConfig(Section):
    """The frozen encoder. Paths may use ${WSSS_SHARED}, ${WSSS_PACKAGE} (this package) and ~."""

    model: str = Field(
        "ViT-B-16-quickgelu",
        description=(
            "open_clip model name (ViT-B-16-quickgelu …) or path of an open_clip model config"
            " (JSON). A ViT with a class token, EVA-CLIP or SigLIP."
        ),
    )
    pretrained: str = Field(
        "openai",
        description=(
            "open_clip pretrained tag (openai …) or path of a weight file. 'random' for none "
            "(tests)."
        ),
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type of the encoder's weights. CAMs are always computed in float32."
    )
    logit_scale: float | None = Field(
        None,
        gt=0,
        description=(
            "Factor of the cosines of images and texts, wherever a softmax follows. null = the "
            "encoder's own (CLIP's is 100). The release of WeCLIP+ takes 25 with ViT-L/14."
        ),
    )
    template: list[str] = Field(
        ["a clean origami {}."],
        min_length=1,
        description="Prompt templates. Their embeddings are averaged.",
    )
    long_side: PositiveInt | None = Field(
        512, description="Scale images to this long side first. null = their own size."
    )
    keep_ratio: bool = chain_field(
        True,
        description=(
            "true: images keep their aspect ratio. false: each is resized to a square of side "
            "clip.input_size. auto = true, or false where the variant is published and "
            "cams.source is patch_text."
        ),
    )
    input_size: PositiveInt = Field(320, description="Side of that square, pixels.")
    normalization: Literal["clip", "imagenet"] = chain_field(
        "clip",
        description=(
            "Mean and standard deviation of the input. clip: the encoder's. imagenet: as in the "
            "released code of WeCLIP, WeCLIP+, WeakCLIP and ExCEL. auto = clip, or imagenet where "
            "the variant is published and the chain is one of theirs."
        ),
    )
    position_rounding: Literal["float32", "float16"] = variant_field(
        published="float16",
        corrected="float32",
        description=(
            "Precision to which the resized positional table is rounded (published patch_text: "
            "float32)."
        ),
    )

    @field_validator("template")
    @classmethod
    def _holds_a_word(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(
                    f"found {template!r}, expected {{}} exactly once, where the word of a class "
                    "goes, e.g. 'a photo of a {}.'"
                )
        return templates


class DinoConfig(Section):
    """A second frozen encoder, DINOv2, which refine.method weclip_plus or an affinity reads."""

    model: str = Field(
        "vit_small_patch14_dinov2",
        description=(
            "Name of a DINOv2 in timm: vit_{small,base,large}_patch14_dinov2, with registers "
            "…_patch14_reg4_dinov2. Or path of a JSON file with its sizes."
        ),
    )
    pretrained: str = Field(
        "lvd142m",
        description=(
            "Tag of its weights in timm (lvd142m: the release), or path of a weight file, such as "
            "dinov2_vits14_pretrain.pth of the release. 'random' for none (tests)."
        ),
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type of the encoder's weights."
    )


def weight_file(pretrained: str) -> Path | None:
    """The file that it names, here or not; None of a tag."""
    path = expand_path(pretrained)
    return path if path.suffix in _WEIGHT_FILES or (pretrained and path.is_file()) else None


def weights_problem(encoder: str, model: str, pretrained: str) -> str:
    """What is wrong where a model comes without weights; empty if it has some.

    Args:
        encoder: its section.
        model: see there; where the hub or a folder has it, its weights may go unnamed.
        pretrained: see there.
    """
    if pretrained == "random" or weight_file(pretrained):
        return ""
    # Of a folder without a tag the weights in it are read.
    is_config = model.endswith(".json") or (pretrained and model.startswith("local-dir:"))
    if is_config or model == "from-weights":
        expected = "a weight file"
    elif not pretrained and ":" not in model:
        example = "lvd142m" if encoder == "dino" else "openai"
        expected = f"weights of it, e.g. {example}, or a weight file"
    else:
        return ""
    kind = "a model config" if is_config else model
    return (
        f"{encoder}.model is {kind}, so {encoder}.pretrained must name {expected} "
        f"(found {pretrained!r})"
    )


def folder_files(model: str) -> list[str]:
    """The files of the folder that a CLIP is read from, or of a local tokenizer that its
    configuration names; none on the hub.

    Args:
        model: ``clip.model``.
    """
    local = model.removeprefix("local-dir:")
    config = folder = expand_path(local)
    with suppress(OSError, ValueError, LookupError, AttributeError, TypeError, StopIteration):
        if local == model:
            content = json.loads(config.read_text(encoding="utf-8"))
            name = content.get("model_cfg", content).get("text_cfg", {})["hf_tokenizer_name"]
            places = (expand_path(name), config.parent / name) if name else ()
            folder = next(path for path in places if path.is_dir())
        return sorted(str(path) for path in folder.iterdir() if path.is_file())
    return []


def encoder_module(encoder: str) -> str:
    """Dotted module that loads a frozen encoder besides CLIP."""
    return f"wsss.{encoder}.load"
