"""Load a CLIP that open_clip can build: by name and tag, from a config, or from bare weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from wsss._compat import import_open_clip
from wsss._compat.optional_timm import enable_timm
from wsss.artifacts.digest import digest_json
from wsss.clip.errors import ClipLoadError
from wsss.clip.images import CLIP_MEAN, CLIP_STD, Channels
from wsss.clip.openai_layout import infer_config
from wsss.clip.weights import read_weights, weights_digest
from wsss.config.safe_yaml import read_bytes
from wsss.errors import raise_unless_about

Tokenize = Callable[[Sequence[str]], Int[Tensor, "prompts context"]]

_MOST_JSON = 2**20
FROM_WEIGHTS = "from-weights"
RANDOM = "random"


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

    @property
    def logit_scale(self) -> float:
        """Factor of the cosines, 100 for CLIP."""
        scale = self.model.get_parameter("logit_scale")
        return float(scale.detach().double().exp())

    @property
    def embed_dim(self) -> int:
        """Width of the space that images and texts share."""
        return int(self.model.get_submodule("visual").output_dim)  # type: ignore[arg-type]


def load_clip(
    model: str,
    pretrained: str = "",
    *,
    cache_dir: Path | None = None,
) -> LoadedClip:
    """Build a CLIP and load its weights.

    Args:
        model: one of
            - an open_clip model name (``ViT-B-16-quickgelu``, ``hf-hub:…``, ``local-dir:…``);
            - path of an open_clip model config (``.json``), or of a hub file that holds it under
              ``model_cfg``, next to a ``preprocess_cfg``;
            - ``from-weights``: read width, depth, patch … from the shapes of a weight file in
              OpenAI's or open_clip's naming; the activation is then QuickGELU, as as in OpenAI's.
        pretrained: a tag of the named model (``openai``), a weight file (safetensors, or a state
            dict that ``torch.load(weights_only=True)`` accepts), or ``random`` (seeded; tests).
        cache_dir: where open_clip stores downloads.

    Raises:
        ClipLoadError: unknown name or tag, unreadable file, weights that do not fit the model, or
            an activation that the tag was not trained with.
    """
    open_clip = import_open_clip()
    file = _weight_file(pretrained)
    config: dict[str, Any] | None = None
    preprocess: Mapping[str, Any] = {}
    weights = read_weights(file) if file is not None else None
    if model == FROM_WEIGHTS:
        if weights is None:
            raise ClipLoadError(
                f"model {FROM_WEIGHTS!r} needs a weight file as pretrained, not {pretrained!r}"
            )
        config = infer_config(weights)
    elif model.endswith(".json"):
        config, preprocess = _read_config(Path(model))
    if config is not None:
        if weights is None and pretrained != RANDOM:
            raise ClipLoadError(
                f"{model}: needs the path of a weight file as pretrained, not {pretrained!r}"
            )
        _enable_timm(config)
        built = _build(open_clip, config, model)
        architecture: Mapping[str, Any] = config
    else:
        # what `hf-hub:` and `local-dir:` stand for is not known before open_clip has read it
        _enable_timm(open_clip.get_model_config(model) if ":" not in model else None)
        built = _by_name(open_clip, model, "" if weights is not None else pretrained, cache_dir)
        preprocess = getattr(built.visual, "preprocess_cfg", {})
        architecture = open_clip.get_model_config(model) or {}
    if weights is not None:
        _fill(open_clip, built, weights, f"{pretrained} into {model}")
    built.eval().requires_grad_(False)
    tokenize, tokenizer = _tokenizer(open_clip, architecture.get("text_cfg", {}))
    mean = _channels(preprocess.get("mean"), CLIP_MEAN)
    std = _channels(preprocess.get("std"), CLIP_STD)
    # Shapes of weights tell neither the activation nor the number of heads.
    weights_and_rest = [weights_digest(built.state_dict()), architecture, tokenizer, mean, std]
    return LoadedClip(
        model=built,
        tokenize=tokenize,
        digest=digest_json(weights_and_rest),
        mean=mean,
        std=std,
    )


def _enable_timm(config: Mapping[str, Any] | None) -> None:
    """Let open_clip build a tower of timm, if a model may have one."""
    vision = {"timm_model_name": True} if config is None else config.get("vision_cfg", {})
    if isinstance(vision, Mapping) and vision.get("timm_model_name"):
        enable_timm()


def _weight_file(pretrained: str) -> Path | None:
    path = Path(pretrained)
    looks_like_file = path.suffix in {".safetensors", ".pt", ".pth", ".bin"}
    return path if looks_like_file or (pretrained and path.is_file()) else None


def _read_config(file: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
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
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if missing:
        raise ClipLoadError(f"{file}: is no open_clip model config, it lacks {', '.join(missing)}")
    preprocess = content.get("preprocess_cfg", {})
    return {key: value for key, value in config.items() if key != "preprocess_cfg"}, preprocess


def _build(open_clip: Any, config: Mapping[str, Any], where: str) -> nn.Module:
    arguments = dict(config)
    custom_text = arguments.pop("custom_text", False) or "hf_model_name" in arguments["text_cfg"]
    kind = open_clip.model.CustomTextCLIP if custom_text else open_clip.CLIP
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            built = kind(**arguments)
    except TypeError as error:
        raise ClipLoadError(f"{where}: open_clip cannot build this model ({error})") from None
    assert isinstance(built, nn.Module)
    return built


def _by_name(open_clip: Any, name: str, tag: str, cache_dir: Path | None) -> Any:
    if ":" not in name and open_clip.get_model_config(name) is None:
        raise ClipLoadError(
            f"{name!r}: open_clip has no model of this name, and it is no .json file; "
            f"see open_clip.list_models(), e.g. ViT-B-16-quickgelu"
        )
    trained = open_clip.pretrained.get_pretrained_cfg(name, tag) if tag and ":" not in name else {}
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
    try:
        with torch.random.fork_rng(devices=()), warnings.catch_warnings():
            torch.manual_seed(0)
            return open_clip.create_model(
                name,
                pretrained=None if tag in {"", RANDOM} else tag,
                cache_dir=None if cache_dir is None else str(cache_dir),
            )
    except (RuntimeError, OSError, ValueError) as error:
        raise ClipLoadError(f"{name} with pretrained {tag!r}: {error}") from None


def _fill(open_clip: Any, built: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict in open_clip's or OpenAI's naming, which agree for plain ViT models."""
    state = {
        key: value
        for key, value in weights.items()
        if key not in {"input_resolution", "context_length", "vocab_size"}
    }
    custom_text = isinstance(built, open_clip.model.CustomTextCLIP)
    if custom_text and "positional_embedding" in state:
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    expected = built.state_dict()
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(expected["logit_scale"].shape)
    problems = [f"lacks {name}" for name in expected if name not in state]
    problems += [f"has unknown {name}" for name in state if name not in expected]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ClipLoadError(f"{where}: the weights do not fit: {'; '.join(problems[:3])}{more}")
    built.load_state_dict(state)


def _tokenizer(open_clip: Any, text: Mapping[str, Any]) -> tuple[Tokenize, str]:
    """The tokenizer that a text config asks for, with a check that every word can be embedded."""
    context = int(text.get("context_length", 77))
    options = dict(text.get("tokenizer_kwargs") or {})
    name = text.get("hf_tokenizer_name")
    if name:
        tokenizer = open_clip.HFTokenizer(
            name, context_length=context, tokenizer_mode=text.get("tokenizer_mode"), **options
        )
    else:
        tokenizer = open_clip.SimpleTokenizer(context_length=context, **options)
    vocabulary = text.get("vocab_size")

    def tokenize(prompts: Sequence[str]) -> Int[Tensor, "prompts context"]:
        tokens = tokenizer(list(prompts))
        assert isinstance(tokens, Tensor)
        if vocabulary is not None and int(tokens.max()) >= vocabulary:
            raise ClipLoadError(
                f"the tokenizer gives ids up to {int(tokens.max())}, but the model embeds "
                f"{vocabulary} only; its own tokenizer is needed"
            )
        return tokens.long()

    identity = json.dumps(
        [name or "clip-bpe", context, text.get("tokenizer_mode"), options],
        sort_keys=True,
        default=str,
    )
    return tokenize, identity


def _channels(values: object, default: Channels) -> Channels:
    if not isinstance(values, list | tuple) or len(values) != 3:
        return default
    return float(values[0]), float(values[1]), float(values[2])
