"""Load a CLIP that open_clip can build: by name and tag, from a config, or from bare weights."""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from wsss._compat import import_open_clip
from wsss._compat.outline import outlines
from wsss._compat.random_start import without_random_start
from wsss.artifacts.digest import digest_json
from wsss.clip.downloads import at_hand, tag_preprocess, tag_weights
from wsss.clip.errors import ClipLoadError
from wsss.clip.images import Channels
from wsss.clip.model_config import (
    channels,
    check_activation,
    check_model_config,
    read_model_config,
)
from wsss.clip.openai_layout import infer_config
from wsss.clip.tokenizer import Tokenize, load_tokenizer
from wsss.clip.trunk.check import check_built_size, check_encoder
from wsss.clip.weights import fitting, not_finite, read_shapes, read_weights, weights_digest
from wsss.config.clip import weight_file, weights_problem
from wsss.config.paths import expand_path

_log = logging.getLogger(__name__)
FROM_WEIGHTS = "from-weights"
RANDOM = "random"
LOCAL_DIR = "local-dir:"


@dataclass(frozen=True)
class LoadedClip:
    """An open_clip model, its tokenizer and the normalisation of its images."""

    model: nn.Module
    """In evaluation mode, frozen, float32, on the CPU."""
    tokenize: Tokenize
    digest: str
    """sha256 over weights, architecture, tokenizer and normalisation."""
    mean: Channels
    std: Channels
    """Normalisation of the images that the model was trained with."""
    config: Mapping[str, Any]
    """Keyword arguments of open_clip's model."""

    @property
    def logit_scale(self) -> float:
        """Factor of the cosines, 100 for CLIP."""
        scale = self.model.get_parameter("logit_scale")
        return float(scale.detach().double().exp())

    @property
    def embed_dim(self) -> int:
        """Width of the space that images and texts share."""
        visual: Any = self.model.get_submodule("visual")
        return int(visual.output_dim if hasattr(visual, "output_dim") else self.config["embed_dim"])

    @property
    def image_size(self) -> int:
        """Longer side of the images that the model was trained with, pixels."""
        size = self.config["vision_cfg"]["image_size"]
        return int(max(size)) if isinstance(size, Sequence) else int(size)


def load_clip(
    model: str,
    pretrained: str = "",
    *,
    cache_dir: Path | None = None,
) -> LoadedClip:
    """Build a CLIP and load its weights.

    Args:
        model: one of
            - an open_clip model name (``ViT-B-16-quickgelu``, ``hf-hub:…``);
            - path of an open_clip model config (``.json``), or of a hub file that holds it under
              ``model_cfg``, next to a ``preprocess_cfg``; ``local-dir:…`` is a folder that holds
              such a file and, if ``pretrained`` is empty, the weights;
            - ``from-weights``: read width, depth, patch … from the shapes of a weight file in
              OpenAI's or open_clip's naming; the activation is then QuickGELU, as in OpenAI's.
        pretrained: a tag of the named model (``openai``), a weight file (safetensors, or a state
            dict that ``torch.load(weights_only=True)`` accepts), or ``random`` (seeded; tests).

    Raises:
        ClipLoadError: unknown name or tag, unreadable file, impossible sizes, weights that are not
            finite or do not fit the model, a tokenizer that cannot be had, or an activation that
            the tag was not trained with.
        UnsupportedEncoderError: the image tower is of no family that is read here.
    """
    open_clip = import_open_clip()
    config_file = _config_file(model)
    if model.startswith(LOCAL_DIR) and not pretrained:
        pretrained = _weights_beside(config_file)
    config: Mapping[str, Any] = {}
    if model != FROM_WEIGHTS and config_file is None:
        check_names(model, "")
        config = _named_config(open_clip, model)
        check_encoder(config, model)
        check_names(model, "" if weight_file(pretrained) else pretrained)
    if problem := weights_problem("clip", str(config_file or model), pretrained):
        raise ClipLoadError(f"{model}: {problem}")
    file = weight_file(pretrained)
    preprocess: Mapping[str, Any] = {}
    weights = read_weights(file) if file is not None else None
    where = f"{pretrained} into {model}"
    if model == FROM_WEIGHTS:
        if weights is None:
            raise ClipLoadError(f"{model}: expected a weight file, not {pretrained!r}")
        config = infer_config(weights)
        check_model_config(config, pretrained)
    elif config_file is not None:
        config, preprocess = read_model_config(config_file)
        if weights is None:
            _log.warning("clip.pretrained is random: %s is not trained", config_file)
    text = config["text_cfg"]
    folder = None if config_file is None else config_file.parent
    if model.startswith(LOCAL_DIR) and text.get("hf_tokenizer_name"):
        text = {**text, "hf_tokenizer_name": str(folder)}  # as open_clip does
    tokenize, tokenizer = load_tokenizer(text, folder=folder, cache_dir=cache_dir)
    with contextlib.nullcontext() if pretrained == RANDOM else without_random_start():
        if model == FROM_WEIGHTS or config_file is not None:
            built = _build(config, weights, model if weights is None else where)
        else:
            tag = pretrained if weights is None else RANDOM
            built = _by_name(open_clip, model, tag, cache_dir)
    if model != FROM_WEIGHTS and config_file is None:
        preprocess = getattr(built.visual, "preprocess_cfg", {})
        if (weights is not None or pretrained == RANDOM) and ":" not in model:
            preprocess = tag_preprocess(model)
    if weights is not None:
        built.load_state_dict(fitting(built, weights, where))
    if problem := not_finite(built.state_dict()):
        raise ClipLoadError(f"{pretrained}: {problem}")
    built.eval().requires_grad_(False)
    mean, std = channels(preprocess, model)
    # Shapes of weights tell neither the activation nor the number of heads.
    weights_and_rest = [weights_digest(built.state_dict()), config, tokenizer, mean, std]
    return LoadedClip(
        model=built,
        tokenize=tokenize,
        digest=digest_json(weights_and_rest),
        mean=mean,
        std=std,
        config=config,
    )


def check_names(model: str, tag: str) -> None:
    """Check that open_clip knows a model, and weights of it by this tag, without fetching any.

    Args:
        model: as in `load_clip`; a name that it reads from a file or from the hub passes.
        tag: as ``pretrained`` in `load_clip`; empty for none.

    Raises:
        ClipLoadError: it does not; the message has the nearest names.
    """
    if model == FROM_WEIGHTS or ":" in model:
        return
    open_clip = import_open_clip()
    if model not in (models := open_clip.list_models()):
        near = difflib.get_close_matches(model, models, n=3) or ["ViT-B-16-quickgelu"]
        raise ClipLoadError(
            f"clip.model: open_clip has no model {model!r}; did you mean {' or '.join(near)}?"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in {"", RANDOM, *tags}:
        near = difflib.get_close_matches(tag, tags, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ClipLoadError(
            f"clip.pretrained: open_clip has no weights {tag!r} of {model}, and there is no such "
            f"file; {hint}it has {', '.join(tags) or 'none'}"
        )


def check_fit(config: Mapping[str, Any] | None, file: Path, where: str) -> None:
    """Check that weights fit a model, from the header of their file; no weight is read.

    Args:
        config: keyword arguments of open_clip's model; None where they are not known.
        file: safetensors; of others nothing is known without reading them.
        where: both, for messages.

    Raises:
        ClipLoadError: the header is damaged, or the weights do not fit.
    """
    if file.suffix != ".safetensors":
        return
    shapes = read_shapes(file)
    if config is None or config["text_cfg"].get("hf_model_name"):
        return  # only the hub knows its sizes
    try:
        with outlines():
            outline = _constructor(config)()
    except Exception:  # whatever open_clip raises; loading says it with its reason
        return
    fitting(outline, shapes, where)


def _config_file(model: str) -> Path | None:
    """The JSON file that ``model`` names, if it names one."""
    if model.startswith(LOCAL_DIR):
        return expand_path(model.removeprefix(LOCAL_DIR)) / "open_clip_config.json"
    return Path(model) if model.endswith(".json") else None


def _weights_beside(config_file: Path | None) -> str:
    """The weight file in the folder of a model config."""
    names = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    files = [] if config_file is None else [config_file.with_name(name) for name in names]
    return next((str(file) for file in files if file.is_file()), "")


def _build(
    config: Mapping[str, Any], weights: Mapping[str, Tensor] | None, where: str
) -> nn.Module:
    """The model of a checked config; it takes memory only once its weights fit it."""
    construct = _constructor(config)
    try:
        with torch.random.fork_rng(devices=()):
            if not config["text_cfg"].get("hf_model_name"):
                with outlines():
                    outline = construct()
                if weights is None:
                    check_built_size(outline, where)
                else:
                    fitting(outline, weights, where)
            torch.manual_seed(0)
            built = construct()
    except ClipLoadError:
        raise
    except Exception as error:  # whatever open_clip and transformers raise at odd values
        reason = str(error) or type(error).__name__
        raise ClipLoadError(f"{where}: open_clip cannot build this model ({reason})") from None
    assert isinstance(built, nn.Module)
    return built


def _constructor(config: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """open_clip's class of model, with the arguments of a config."""
    model = import_open_clip().model
    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    custom_text = config.get("custom_text") or config["text_cfg"].get("hf_model_name")
    return functools.partial(model.CustomTextCLIP if custom_text else model.CLIP, **arguments)


def _named_config(open_clip: Any, name: str) -> Mapping[str, Any]:
    """The config of a model of open_clip or of the hub."""
    try:
        config = open_clip.get_model_config(name)
    except Exception as error:  # whatever the hub's client raises
        raise ClipLoadError(f"{name}: its model config cannot be had ({error})") from None
    if config is None:
        raise ClipLoadError(
            f"{name!r}: open_clip has no model of this name, and it is no .json file; "
            f"see open_clip.list_models(), e.g. ViT-B-16-quickgelu"
        )
    return {"text_cfg": {}, **config}


def _by_name(open_clip: Any, name: str, tag: str, cache_dir: Path | None) -> Any:
    trained = check_activation(name, tag)
    weights = tag_weights(name, tag, cache_dir) if trained else None
    try:
        with torch.random.fork_rng(devices=()), warnings.catch_warnings(), at_hand(weights):
            torch.manual_seed(0)
            return open_clip.create_model(
                name,
                pretrained=None if tag in {"", RANDOM} else tag,
                load_weights=tag != RANDOM,
                require_pretrained=tag != RANDOM,  # of the hub it would only warn
                cache_dir=None if cache_dir is None else str(cache_dir),
            )
    except ClipLoadError:
        raise
    except (RuntimeError, OSError, ValueError, ImportError) as error:
        if weights is not None and isinstance(error, URLError):
            raise ClipLoadError(weights.unreachable(str(error))) from None
        raise ClipLoadError(f"{name} with pretrained {tag!r}: {error}") from None
