"""The JSON that describes a CLIP: read, and checked before anything of its sizes is built."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from torch import nn

from wsss._compat import import_open_clip
from wsss._compat.outline import outlines
from wsss.clip.errors import ClipLoadError
from wsss.clip.images import CLIP_MEAN, CLIP_STD, Channels
from wsss.clip.trunk.check import check_built_size, check_encoder, check_plain
from wsss.config.errors import explain_value
from wsss.config.safe_yaml import read_bytes
from wsss.errors import raise_unless_about

_MOST_JSON = 2**20
_TOWERS = ("vision_cfg", "text_cfg")
_TOWER = "the image tower"
# Largest sizes; those of the largest CLIPs of open_clip are at most a quarter of these, except for
# vocabularies (901,629 words).
_LARGEST_EMBED, _LARGEST_IMAGE = 16_384, 4096
_LARGEST_VISION = {"layers": 256, "width": 16_384, "head_width": 1024, "patch_size": 512}
_LARGEST_TEXT = {
    "layers": 256, "width": 16_384, "heads": 512, "context_length": 4096, "vocab_size": 4_000_000,
}  # fmt: skip
_LARGEST_RATIO = 64.0


def read_model_config(file: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The keyword arguments of open_clip's model, and how its images are prepared.

    Args:
        file: JSON, the arguments themselves or under ``model_cfg``.

    Raises:
        ClipLoadError: it cannot be read, or `check_model_config` refuses it.
        UnsupportedEncoderError: the image tower is of no family that is read here.
    """
    try:
        content = json.loads(read_bytes(file, _MOST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise_unless_about(file, error)
        raise ClipLoadError(
            f"{file}: cannot be read as an open_clip model config ({error}); clip.model must name "
            "one, or a model of open_clip"
        ) from None
    config = content.get("model_cfg", content) if isinstance(content, dict) else {}
    config = config if isinstance(config, dict) else {}
    missing = [key for key in ("embed_dim", *_TOWERS) if key not in config]
    if missing:
        raise ClipLoadError(f"{file}: is no open_clip model config, it lacks {', '.join(missing)}")
    preprocess = content.get("preprocess_cfg") or {}
    if not isinstance(preprocess, dict):
        raise ClipLoadError(f"{file}: preprocess_cfg: found {preprocess!r}, expected a mapping")
    config = {key: value for key, value in config.items() if key != "preprocess_cfg"}
    check_model_config(config, str(file))
    return config, preprocess


def check_model_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse keys, types and sizes that no CLIP has.

    Args:
        config: keyword arguments of open_clip's model.
        where: its source, for messages.

    Raises:
        ClipLoadError: it names every wrong key.
        UnsupportedEncoderError: the image tower is of no family that is read here.
    """
    check_encoder(config, where)
    try:
        checked = _schema().model_validate_json(json.dumps(config), strict=True).model_dump()
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"] if not str(part).startswith("tuple["))
            unknown = item["type"] == "extra_forbidden"
            lines.append(f"{key}: {'unknown key' if unknown else explain_value(item)}")
        raise _refusal(where, lines) from None
    if problems := list(_impossible(checked)):
        raise _refusal(where, problems)


def known_config(model: str) -> Mapping[str, Any] | None:
    """The keyword arguments of open_clip's model, where they are known without its weights.

    Args:
        model: a name of open_clip, or the path of a JSON file.

    Returns:
        None for models of a hub, which is not asked, and for ``from-weights``.

    Raises:
        ClipLoadError: see `read_model_config`.
        UnsupportedEncoderError: see `read_model_config`.
    """
    if model.endswith(".json"):
        return read_model_config(Path(model))[0]
    config: Mapping[str, Any] | None = None
    if ":" not in model:
        config = import_open_clip().get_model_config(model)
    return config


def check_activation(name: str, tag: str) -> Mapping[str, Any]:
    """Refuse weights that were trained with another activation than a model of open_clip has.

    Args:
        tag: of its weights; empty for none.

    Returns:
        What open_clip knows of the weights; empty without a tag, and for models of a hub.

    Raises:
        ClipLoadError: it names the model that has the other activation.
    """
    if not tag or ":" in name:
        return {}
    open_clip = import_open_clip()
    trained: Mapping[str, Any] = open_clip.pretrained.get_pretrained_cfg(name, tag)
    if trained:
        expected = bool(trained.get("quick_gelu", False))
        actual = bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))
        if expected != actual:
            names = {True: "QuickGELU", False: "GELU"}
            other = f"{name}-quickgelu" if expected else name.removesuffix("-quickgelu")
            raise ClipLoadError(
                f"{name} with tag {tag!r}: these weights were trained with {names[expected]}, "
                f"the model has {names[actual]}; use the model {other!r}"
            )
    return trained


def tower_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a model's keyword arguments that describes its image tower."""
    names = ("embed_dim", "vision_cfg", "quick_gelu")
    return {name: config[name] for name in names if name in config}


def check_tower(tower: Mapping[str, Any]) -> None:
    """Refuse an image tower that no CLIP has.

    Args:
        tower: what `tower_config` gives.

    Raises:
        ClipLoadError: no tower can be built of it.
        UnsupportedEncoderError: it is no plain ViT.
    """
    check_plain(tower, _TOWER)
    check_model_config({**tower, "text_cfg": {}}, _TOWER)


def build_image_tower(tower: Mapping[str, Any]) -> nn.Module:
    """open_clip's plain `VisionTransformer` with random weights.

    Args:
        tower: what `tower_config` gives.

    Raises:
        ClipLoadError: see `check_tower`; or it would not fit into this machine's memory.
        UnsupportedEncoderError: see `check_tower`.
    """
    check_tower(tower)
    build = import_open_clip().model._build_vision_tower
    with outlines():
        check_built_size(build(**tower), _TOWER)
    visual: nn.Module = build(**tower)
    return visual


def channels(preprocess: Mapping[str, Any], where: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each colour; CLIP's where there are none.

    Raises:
        ClipLoadError: they are not three finite numbers each, or a deviation is not positive.
    """
    read = []
    for name, default in (("mean", CLIP_MEAN), ("std", CLIP_STD)):
        values = preprocess.get(name)
        if values is None:
            read.append(default)
            continue
        numbers = values if isinstance(values, list | tuple) else ()
        if len(numbers) != 3 or not all(
            isinstance(value, int | float)
            and math.isfinite(value)
            and (value > 0 or name == "mean")
            for value in numbers
        ):
            raise ClipLoadError(
                f"{where}: preprocess_cfg.{name}: found {values!r}, expected three "
                f"{'positive ' if name == 'std' else ''}numbers"
            )
        read.append((float(numbers[0]), float(numbers[1]), float(numbers[2])))
    return read[0], read[1]


@functools.cache
def _schema() -> type[BaseModel]:
    """The keys and types of open_clip's own dataclasses, with bounds."""
    model = import_open_clip().model
    return create_model(
        "ModelConfig",
        __config__=ConfigDict(extra="forbid", allow_inf_nan=False),
        embed_dim=(int, Field(gt=0, le=_LARGEST_EMBED)),
        vision_cfg=(_section(model.CLIPVisionCfg, _LARGEST_VISION), ...),
        text_cfg=(_section(model.CLIPTextCfg, _LARGEST_TEXT), ...),
        quick_gelu=(bool, False),
        custom_text=(bool, False),
        init_logit_scale=(float | None, None),
        init_logit_bias=(float | None, None),
        nonscalar_logit_scale=(bool, False),
    )


def _section(kind: Any, largest: Mapping[str, int]) -> type[BaseModel]:
    types = get_type_hints(kind)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        limits: dict[str, Any] = {}
        expected: Any = types[field.name]
        if field.name in largest:
            expected, limits = int, {"gt": 0, "le": largest[field.name]}
        elif field.name == "timm_proj":  # open_clip's own configs of EVA have null
            expected = str | None
        elif field.name == "mlp_ratio":
            limits = {"gt": 0, "le": _LARGEST_RATIO}
        default: Any = field.default
        fields[field.name] = (expected, Field(default, **limits))
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: type[BaseModel] = create_model(kind.__name__, __config__=config, **fields)
    return model


def _impossible(config: Mapping[str, Any]) -> Iterator[str]:
    """Sizes that do not fit each other."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    is_timm = vision["timm_model_name"] is not None  # which then says all sizes of the image tower
    if not is_timm and vision["width"] % vision["head_width"]:
        yield (
            f"vision_cfg.head_width: {vision['head_width']} does not divide the width "
            f"{vision['width']}"
        )
    if text["width"] % text["heads"] and not text["hf_model_name"]:
        yield f"text_cfg.heads: {text['heads']} does not divide the width {text['width']}"
    for name, tower in (("vision_cfg", vision), ("text_cfg", text)):
        if tower["width"] * tower["mlp_ratio"] < 1:
            yield f"{name}.mlp_ratio: {tower['mlp_ratio']} of the width {tower['width']} is nothing"
    if is_timm:
        return
    size, patch = vision["image_size"], vision["patch_size"]
    for side in size if isinstance(size, tuple) else (size,):
        if not patch <= side <= _LARGEST_IMAGE or side % patch:
            yield (
                f"vision_cfg.image_size: {side} is no multiple of the patch ({patch}) up to "
                f"{_LARGEST_IMAGE}"
            )


def _refusal(where: str, lines: list[str]) -> ClipLoadError:
    return ClipLoadError(f"{where}: no model can be built of it\n  " + "\n  ".join(lines))
