"""What a rehearsal changes in presets and tables; every other value is as they say."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from wsss._compat import import_open_clip
from wsss.config.matrix import AXES
from wsss.config.paths import SHARED_VARIABLE
from wsss.retrain.weights.pretrained import PRETRAINED

STEPS = 2
BATCH = 2
PHASES: Mapping[str, tuple[str, ...]] = {
    "weclip": ("rfm_start",),
    "excel": ("lvc_start", "self_training_start"),
    "weclip_plus": ("self_training_start",),
}
"""By method, the options that say from which step on its training does more."""
WEIGHTS = "data/weights"


def tag_weights(model: str, tag: str) -> str:
    """Where the file lies that stands for a tag of open_clip, or of timm's DINOv2."""
    return f"{WEIGHTS}/{model}-{tag}.safetensors"


def model_file(model: str) -> str:
    """Where the config of open_clip's model lies, if it names a tokenizer of the hub."""
    config = import_open_clip().get_model_config(model) or {"text_cfg": {}}
    has_tokenizer = "hf_tokenizer_name" in config["text_cfg"]
    return f"{WEIGHTS}/{model}.json" if has_tokenizer else model


def initial_weights(name: str) -> str:
    """Where the file lies that stands for a name of `retrain.init`."""
    return f"{WEIGHTS}/{name}.pth"


def is_tag(pretrained: str) -> bool:
    """Whether ``pretrained`` is a name whose weights are downloaded."""
    return "/" not in pretrained and "." not in pretrained and pretrained != "random"


def reduce(
    mapping: Mapping[str, Any], *, base: Mapping[str, Any], photos: tuple[int, int], whole: bool
) -> dict[str, Any]:
    """A preset, or the changes of a table, with the reductions.

    Args:
        mapping: what it sets.
        base: what it is laid over, not reduced.
        photos: training and held-out images.
        whole: set every reduced key, also those that ``mapping`` leaves as they are in ``base``.
    """
    result = copy.deepcopy(dict(mapping))
    rules = _rules(mapping, base, photos)
    for key, rule in rules.items():
        value = _get(mapping, key)
        if value is None and whole:
            value = _get(base, key)
        if value is not None and rule(value) != value:
            _set(result, key, rule(value))
    for entries in _runs(result):
        for name, changes in entries.items():
            entries[name] = reduce(changes, base=base, photos=photos, whole=False)
    return result


def describe(photos: tuple[int, int]) -> list[str]:
    """The reductions, one line each."""
    train, val = photos
    return [
        f"photographs of {SHARED_VARIABLE}: {train} of the training list, {val} of val",
        "shards: 1; compute.workers and the trainings' threads: 1; compute.device: cpu",
        f"refine.train and retrain: iterations {STEPS}, batch {BATCH} (or the preset's, if less), "
        "warmup 0",
        f"{', '.join(f'refine.{m}.{o}' for m, options in PHASES.items() for o in options)}: 1, so "
        "that the second step is of the second phase",
        "clip.pretrained, dino.pretrained, retrain.init, refine.checkpoint: random weights in "
        "files of the same layout, instead of downloads",
        "clip.model with a tokenizer of the hub: the same model with a tokenizer of few words",
        "seeds of cams.external: one Gaussian per tag",
    ]


def _rules(
    mapping: Mapping[str, Any], base: Mapping[str, Any], photos: tuple[int, int]
) -> dict[str, Callable[[Any], Any]]:
    """From a key's value to the reduced one."""

    def steps(section: str) -> int:
        key = f"{section}.iterations"
        return _get(mapping, key) or _get(base, key)

    model = _get(mapping, "clip.model") or _get(base, "clip.model")
    dino = _get(mapping, "dino.model") or _get(base, "dino.model")
    rules: dict[str, Callable[[Any], Any]] = {
        "shards": lambda _: 1,
        "compute.workers": lambda _: 1,
        "compute.device": lambda _: "cpu",
        "data.demo_images": lambda _: list(photos),
        "clip.model": model_file,
        "clip.pretrained": lambda tag: tag_weights(model, tag) if is_tag(tag) else tag,
        "dino.pretrained": lambda tag: tag_weights(dino, tag) if is_tag(tag) else tag,
        "retrain.init": lambda name: initial_weights(name) if name in PRETRAINED else name,
    }
    for section in ("refine.train", "retrain"):
        rules |= {
            f"{section}.iterations": lambda _: STEPS,
            f"{section}.batch": lambda batch: min(batch, BATCH),
            f"{section}.warmup": lambda _: 0,
            f"{section}.threads": lambda _: 1,
        }
    for method, options in PHASES.items():
        for option in options:
            # A start after the last step means never.
            rules[f"refine.{method}.{option}"] = lambda start: (
                1 if start < steps("refine.train") else STEPS
            )
    return rules


def _runs(mapping: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The named runs of a preset, and the entries of its matrix."""
    yield mapping.get("runs", {})
    for axis in AXES:
        yield mapping.get("matrix", {}).get(axis, {})


def _get(mapping: Mapping[str, Any], key: str) -> Any:
    value: Any = mapping
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _set(mapping: dict[str, Any], key: str, value: object) -> None:
    *sections, last = key.split(".")
    for section in sections:
        mapping = mapping.setdefault(section, {})
    mapping[last] = value
