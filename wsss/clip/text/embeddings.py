"""The text bank: unit vectors of class and background prompts, cached by content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.checkpoint import load_tensors, save_tensors
from wsss.artifacts.code_digest import code_digest
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import package_versions
from wsss.clip.load import LoadedClip
from wsss.clip.towers import TextTower, reads_end_token, short_texts
from wsss.compute.threads import one_thread_each, ordered_map

_FORMAT = 1
_BATCH = 16
"""Prompts of a batch: more take no less time each."""


@dataclass(frozen=True)
class TextBank:
    """Text features of a class list."""

    classes: Float[Tensor, "classes embed_dim"]
    """Unit vectors."""
    backgrounds: Float[Tensor, "backgrounds embed_dim"]
    """Unit vectors of the background prompts; may be empty."""

    def to(self, device: torch.device | str) -> TextBank:
        """The same bank on another device."""
        return TextBank(self.classes.to(device), self.backgrounds.to(device))


def text_bank(
    clip: LoadedClip,
    classes: Sequence[str],
    backgrounds: Sequence[str],
    templates: Sequence[str],
    *,
    cache_dir: Path | None = None,
) -> TextBank:
    """Encode prompts, or read them from the cache (eq. 4 of docs/methods/clip-es.md).

    Each word is put into every template; the unit vectors of the templates are averaged and scaled
    to unit length again. Synonyms belong into one word, comma-separated.

    Args:
        clip: the model; its text tower is used in float32.
        classes: prompt words of the classes, e.g. ``bird avian``.
        backgrounds: prompt words of the background set; may be empty.
        templates: each holds ``{}`` once, e.g. ``a clean origami {}.``.
        cache_dir: stores one file per combination of code, package versions, model, templates and
            words; None stores none.

    Raises:
        ValueError: no template, a template without ``{}``, or an empty word.
    """
    if not templates or any(template.count("{}") != 1 for template in templates):
        raise ValueError(
            f"templates {list(templates)}: expected at least one, each with {{}} exactly once"
        )
    words = [*classes, *backgrounds]
    if any(not word.strip() for word in words):
        raise ValueError("a prompt word is empty; every class and background needs one")
    file = None
    if cache_dir is not None:
        file = cache_dir / f"text-{_key(clip, words, templates)}.safetensors"
        stored = _read(file, words)
        if stored is not None:
            return TextBank(stored[: len(classes)], stored[len(classes) :])
    features = encode_words(clip, words, templates)
    if file is not None:
        with atomic_path(file) as temporary:
            save_tensors(temporary, {"features": features}, {"words": json.dumps(words)})
    return TextBank(features[: len(classes)], features[len(classes) :])


def encode_words(
    clip: LoadedClip, words: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "words embed_dim"]:
    """Unit vectors of words, averaged over templates.

    Prompts of similar lengths are encoded together. They do not depend on the number of threads,
    but the last bits of a word depend on the other words.
    """
    if not words:
        return torch.zeros(0, clip.embed_dim)
    tokens = clip.tokenize(
        [template.replace("{}", word) for word in words for template in templates]
    )
    order = tokens.argmax(1).argsort(stable=True)  # the end token is the largest
    batches = order.split(_BATCH)
    with one_thread_each() as threads:
        encoded = ordered_map(
            lambda indices: encode_tokens(clip.model, tokens[indices]), batches, threads=threads
        )
        sorted_features = torch.cat(list(encoded))
    features = sorted_features[order.argsort()]
    features = features.unflatten(0, (len(words), len(templates)))  # (W T, D) -> (W, T, D)
    return F.normalize(features.mean(1), dim=-1)


@torch.no_grad()
def encode_tokens(
    model: nn.Module, tokens: Int[Tensor, "prompts context"]
) -> Float[Tensor, "prompts embed_dim"]:
    """Unit vectors of tokenised prompts, float32.

    A tower that reads a text at its end token computes no padding.

    Args:
        model: open_clip's CLIP or CustomTextCLIP.
        tokens: of its tokenizer, padded.
    """
    if reads_end_token(model):
        tokens = short_texts(tokens)
        tower = TextTower(model, tokens.shape[1])
        features = tower(tower.embedding(tokens), tokens.argmax(1))
    else:
        features = model.encode_text(tokens)  # type: ignore[operator]
    return F.normalize(features.float(), dim=-1)


def _key(clip: LoadedClip, words: Sequence[str], templates: Sequence[str]) -> str:
    code = code_digest([__name__])
    content = [_FORMAT, code, package_versions(), clip.digest, list(templates), words]
    return digest_json(content)[:32]


def _read(file: Path, words: Sequence[str]) -> Tensor | None:
    """The cached features, or None if there are none, they are damaged or of other words."""
    try:
        tensors, about = load_tensors(file, "it is computed again")
        features = tensors["features"]
    except (ArtifactError, KeyError):
        return None
    fits = features.ndim == 2 and len(features) == len(words)
    return features if fits and about.get("words") == json.dumps(words) else None
