"""Which image towers are read here, decided by a model's config before weights are fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from wsss._compat import import_open_clip
from wsss._compat.outline import outlines
from wsss._compat.timm_towers import import_timm_towers
from wsss.clip.errors import ClipLoadError, UnsupportedEncoderError
from wsss.clip.trunk.parts import Tower, Trunk
from wsss.clip.trunk.read import FAMILIES, read_trunk


def check_encoder(config: Mapping[str, Any], where: str) -> None:
    """Refuse an image tower of a family that is not read here, before weights are fetched.

    A tower of timm is built without memory, and its parts are looked at.

    Args:
        config: keyword arguments of open_clip's model.
        where: its source, for messages.

    Raises:
        ClipLoadError: timm has no such tower, or would fetch something to build it.
        UnsupportedEncoderError: it is of another family; the message lists them.
    """
    vision = config.get("vision_cfg")
    if not isinstance(vision, Mapping):
        return
    if vision.get("timm_model_name"):
        read_outline(config, where)
    elif kind := _other_kind(config, vision):
        raise UnsupportedEncoderError(f"{where}: the image tower is {kind}; {FAMILIES}")


def read_outline(config: Mapping[str, Any], where: str) -> Trunk:
    """The parts of an image tower, which is built without memory: their shapes are right.

    Args:
        config: keyword arguments of open_clip's model, which `check_encoder` lets pass or which
            name a tower of timm.
        where: its source, for messages.

    Raises:
        ClipLoadError: timm has no such tower, or would fetch something to build it.
        UnsupportedEncoderError: it is of another family; the message lists them.
    """
    vision = config["vision_cfg"]
    built = _timm_outline(config, where) if vision.get("timm_model_name") else _outline(config)
    try:
        return read_trunk(built, lambda parameter: parameter.detach())
    except UnsupportedEncoderError as error:
        raise UnsupportedEncoderError(f"{where}: {error}") from None


def check_plain(config: Mapping[str, Any], where: str) -> None:
    """Refuse an image tower other than open_clip's ViT, the one that is trained here.

    Args:
        config: keyword arguments of open_clip's model.
        where: its source, for messages.

    Raises:
        UnsupportedEncoderError: it is another one.
    """
    vision = config.get("vision_cfg")
    if not isinstance(vision, Mapping):
        return
    name = vision.get("timm_model_name")
    if kind := f"timm's {name}" if name else _other_kind(config, vision):
        raise UnsupportedEncoderError(
            f"{where}: the image tower is {kind}; only open_clip's ViT with a class token is "
            "trained here, e.g. that of ViT-B-16-quickgelu or ViT-L-14-quickgelu"
        )


def refuse_pooled(tower: Tower, what: str, remedy: str) -> None:
    """Refuse an image tower whose patches are not in the space of the texts.

    Args:
        what: needs them, with its verb, for the message.
        remedy: the settings that do without.

    Raises:
        UnsupportedEncoderError: it has no class token (SigLIP).
    """
    if not tower.has_class_token:
        raise UnsupportedEncoderError(
            f"{what} texts with patches: {tower.family} embeds none of them, but pools them by "
            f"attention; {remedy}, or take an encoder with a class token, e.g. ViT-B-16-quickgelu"
        )


def check_built_size(built: nn.Module, where: str) -> None:
    """Refuse a model that would not fit into this machine's memory.

    Args:
        built: the model on the device ``meta``, where it takes no memory.
        where: its source, for messages.

    Raises:
        ClipLoadError: it says how large both are.
    """
    needed = sum(value.numel() * value.element_size() for value in _tensors(built))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ClipLoadError(
            f"{where}: the model would take {needed / 2**30:.1f} GiB, this machine has "
            f"{memory / 2**30:.1f} GiB; choose smaller sizes"
        )


def _other_kind(config: Mapping[str, Any], vision: Mapping[str, Any]) -> str:
    """What a tower of open_clip is, if not its ViT with a class token; else empty."""
    if isinstance(vision.get("layers"), list):
        return "a ResNet"
    if vision.get("attentional_pool") or "multimodal_cfg" in config:
        return "a ViT that pools by attention, as CoCa's"
    return ""


def _outline(config: Mapping[str, Any]) -> nn.Module:
    with outlines():
        tower: nn.Module = import_open_clip().model._build_vision_tower(
            config.get("embed_dim"),
            dict(config["vision_cfg"]),
            bool(config.get("quick_gelu", False)),
        )
    return tower


def _timm_outline(config: Mapping[str, Any], where: str) -> nn.Module:
    """A tower of timm without memory."""
    vision = config["vision_cfg"]
    name = str(vision["timm_model_name"])
    if not re.fullmatch(r"[\w.-]+", name) or vision.get("timm_model_pretrained"):
        raise ClipLoadError(
            f"{where}: vision_cfg.timm_model_name is {name!r}; expected a name of timm, and "
            "timm_model_pretrained false, so that nothing is fetched"
        )
    try:
        import_timm_towers()
        tower = _outline(config)
        check_built_size(tower, where)
    except ImportError as error:
        raise ClipLoadError(
            f"{where}: the image tower is timm's {name}, which needs timm ({error}); install it: "
            "pip install timm"
        ) from None
    except ClipLoadError:
        raise
    except Exception as error:  # whatever timm raises at unknown names and odd values
        raise ClipLoadError(f"{where}: timm cannot build {name} ({error})") from None
    return tower


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
