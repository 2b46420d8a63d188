"""The tokenizer that a model's config asks for: CLIP's own, or one of Hugging Face."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from wsss._compat import import_open_clip
from wsss.artifacts.digest import digest_json
from wsss.clip.errors import ClipLoadError
from wsss.config.paths import expand_path

Tokenize = Callable[[Sequence[str]], Int[Tensor, "prompts context"]]

_BPE_WORDS = 49_408  # of CLIP's own vocabulary, open_clip's default
_LONGEST_REASON = 300


def load_tokenizer(
    text: Mapping[str, Any], *, folder: Path | None = None, cache_dir: Path | None = None
) -> tuple[Tokenize, str]:
    """The tokenizer of a text tower, with a check that the tower can embed each token.

    Args:
        text: ``text_cfg``. ``hf_tokenizer_name`` is a name on Hugging Face's hub or a folder;
            ``tokenizer_kwargs`` are passed on.
        folder: of the model config; relative folders are looked up here as well.

    Returns:
        The function, and a text that differs between tokenizers that may give other tokens.

    Raises:
        ClipLoadError: the tokenizer cannot be had, or does not know an option.
    """
    context = int(text.get("context_length", 77))
    options = dict(text.get("tokenizer_kwargs") or {})
    name, mode = text.get("hf_tokenizer_name"), text.get("tokenizer_mode")
    if name:
        tokenizer, identity = _of_hugging_face(name, context, mode, options, folder, cache_dir)
    else:
        try:
            tokenizer = _of_clip(context, options)
        except (TypeError, ValueError, AssertionError, OSError) as error:
            raise ClipLoadError(
                f"text_cfg.tokenizer_kwargs: CLIP's tokenizer does not take {options} ({error})"
            ) from None
        identity = "clip-bpe"
    vocabulary = None if text.get("hf_model_name") else text.get("vocab_size", _BPE_WORDS)

    def tokenize(prompts: Sequence[str]) -> Int[Tensor, "prompts context"]:
        tokens = tokenizer(list(prompts))
        assert isinstance(tokens, Tensor)
        if vocabulary is not None and int(tokens.max()) >= vocabulary:
            raise ClipLoadError(
                f"the tokenizer gives ids up to {int(tokens.max())}, but the model embeds "
                f"{vocabulary} only; its own tokenizer is needed"
            )
        return tokens.long()

    return tokenize, json.dumps([identity, context, mode, options], sort_keys=True, default=str)


def _of_clip(context: int, options: Mapping[str, Any]) -> Callable[[list[str]], Tensor]:
    """CLIP's own. Without options it is the one that open_clip shares."""
    open_clip = import_open_clip()
    if not options:
        return functools.partial(open_clip.tokenize, context_length=context)
    return open_clip.SimpleTokenizer(context_length=context, **options)


def _of_hugging_face(
    name: str,
    context: int,
    mode: str | None,
    options: Mapping[str, Any],
    folder: Path | None,
    cache_dir: Path | None,
) -> tuple[Any, str]:
    """The tokenizer, and the digest of its vocabulary and rules."""
    source = _local_folder(name, folder)
    if "trust_remote_code" in options:
        raise ClipLoadError(
            "text_cfg.tokenizer_kwargs: trust_remote_code would run code of others; take it out"
        )
    try:
        tokenizer = import_open_clip().factory.HFTokenizer(
            str(source or name),
            context_length=context,
            cache_dir=None if cache_dir is None else str(cache_dir),
            tokenizer_mode=mode,
            trust_remote_code=False,
            **options,
        )
    except ImportError as error:
        raise ClipLoadError(
            f"the model's tokenizer {name!r} is one of Hugging Face, for which a package is "
            f"missing ({_brief(error)}); install it: pip install transformers sentencepiece"
        ) from None
    except Exception as error:  # whatever transformers and its parsers raise at foreign files
        remedy = (
            "it must hold the tokenizer's files (tokenizer.json, tokenizer_config.json …)"
            if source
            else "where the hub cannot be reached, copy its files (tokenizer.json, "
            "tokenizer_config.json …) into a folder and name that folder as "
            "text_cfg.hf_tokenizer_name in a model config (.json)"
        )
        raise ClipLoadError(
            f"the model's tokenizer {str(source or name)!r} cannot be loaded ({_brief(error)}); "
            f"{remedy}"
        ) from None
    backend = getattr(tokenizer.tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else tokenizer.tokenizer.get_vocab()
    return tokenizer, digest_json(rules)


def _local_folder(name: str, folder: Path | None) -> Path | None:
    """The folder that a name means, as written or below the model config's; None: on the hub."""
    path = expand_path(name)
    places = [path] if folder is None else [path, folder / path]
    local = next((place for place in places if place.is_dir()), None)
    if local is None and (path.is_absolute() or name.startswith(("./", "../", "~"))):
        raise ClipLoadError(f"text_cfg.hf_tokenizer_name: {path}: no such folder of a tokenizer")
    return local


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} …"
