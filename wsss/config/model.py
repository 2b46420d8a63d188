"""The whole configuration, in the order in which data walks through the stages.

Every field has a default for photographs; the embedded demo changes some of them (`DEMO`).
`wsss config schema` and `wsss config reference` are generated from the models. Each
section has a module in this package; options of a method are in its folder in `wsss.refine`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from pydantic import Field, PositiveInt, field_validator, model_validator

from wsss.compute.planned_gpus import planned_gpus
from wsss.compute.shards import parts_on_disk, suitable_shards
from wsss.compute.workers import auto_workers
from wsss.config.base import (
    AUTO,
    Section,
    Split,
    Supervision,
    Variant,
    chain_field,
    fill_variant,
    overlay,
)
from wsss.config.cams import CamsConfig
from wsss.config.clip import ClipConfig, DinoConfig
from wsss.config.compute import ComputeConfig
from wsss.config.data import DataConfig, TagNoiseConfig, count_images
from wsss.config.infer import InferConfig
from wsss.config.labels import CrfBackend, MasksConfig, SeedsConfig, with_refine
from wsss.config.matrix import MatrixConfig
from wsss.config.refine import RefineConfig, published_normalization
from wsss.config.retrain import RECIPE_BATCH_NORM, RECIPE_INIT, PredictConfig, RetrainConfig
from wsss.config.score import PicturesConfig, ScoreConfig

DEMO: Final[Mapping[str, Any]] = {
    "shards": 2,
    # Half of a job is its start, which one core does: two jobs at once beat two workers in one.
    "compute": {"workers": 1},
    "data": {"root": "results/demo-data"},
    "clip": {
        "model": "${WSSS_PACKAGE}/demo/weights/demo-vit-p8.json",
        "pretrained": "${WSSS_PACKAGE}/demo/weights/demo-vit-p8.safetensors",
        "long_side": None,
    },
    "cams": {"affinity": {"enabled": False}},
    "refine": {
        "method": "weclip",
        "train": {
            "iterations": 400,
            "crop": 64,
            "scale_range": [0.75, 1.5],
            "checkpoint_every": 200,
        },
        "weclip": {"width": 64, "rfm_start": 200},
        "weakclip": {"width": 64, "channels": 64},
        "excel": {"width": 64, "lvc_start": 200},
        "weclip_plus": {"width": 64, "self_training_start": 240},
    },
    "infer": {"scales": [1.0]},
    # Pixels of which WeCLIP is sure. A CRF makes all others sure, too, right or wrong.
    "masks": {"background": {"value": 2.0}, "min_score": 0.9},
    "retrain": {
        "model": "clip-vit",
        "crop": 112,
        "scale_range": [1.0, 1.0],
        "cat_max_ratio": 1.0,
        "color": "none",
        "batch": 8,
        "iterations": 450,
        "lr": 1e-2,
        "clip_lr": 0.0,
        "clip_stem": False,
        "label_smoothing": 0.1,
        "warmup": 20,
        "checkpoint_every": 150,
    },
    "predict": {"scales": [1.0]},
}
"""By section and key, for ``data.kind: demo``; values of a file replace them. They were chosen on
other drawings than those that the demo shows (docs/results/demo.md)."""


class Config(Section):
    """A run, whose results are in results/<name>/."""

    name: str = Field(
        "demo",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=200,
        description="Results go to results/<name>/.",
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    sweep: dict[str, list[Any]] = Field(
        default_factory=dict,
        description=(
            "Runs that differ in one key each, e.g. {refine.weakclip.prompts: [2, 4, 8]}. There is "
            "one run per value in results/<name>/<key>-<value>/, and a table of all. With several "
            "keys there is one run per combination. Runs share the manifest, and the CAMs if "
            "these are the same."
        ),
    )
    runs: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description=(
            "Runs by name with the options that they change, e.g. {plain: {cams: {affinity: "
            "{enabled: false}}}}. They are compared like those of a sweep and combine with one."
        ),
    )
    matrix: MatrixConfig = MatrixConfig()
    variant: Variant = Field(
        "corrected",
        description=(
            "corrected: what a user should run. published: as the authors' code, errors included."
        ),
    )
    supervision: Supervision = Field(
        "tags",
        description=(
            "tags: weakly supervised. Only scoring opens pixel labels. masks: the fully "
            "supervised upper bound. Refiner and segmenter are then trained on the pixel labels of "
            "the training images, without CAMs and pseudo masks. Everything is labelled so."
        ),
    )
    shards: PositiveInt = chain_field(
        4,
        le=1000,
        description=(
            "Parts of each split. Each part is one job per stage. auto = the number of the parts "
            "that results/<name>/ has. Without any: one per 670 training images on a CPU, one per "
            "4000 on a GPU. There are as many parts as GPUs if each has 670 images. For the demo "
            "it is 2."
        ),
    )
    compute: ComputeConfig = ComputeConfig()
    data: DataConfig = DataConfig()
    tag_noise: TagNoiseConfig = TagNoiseConfig()
    clip: ClipConfig = ClipConfig()
    dino: DinoConfig = DinoConfig()
    cams: CamsConfig = CamsConfig()
    seeds: SeedsConfig = SeedsConfig()
    refine: RefineConfig = RefineConfig()
    infer: InferConfig = InferConfig()
    masks: MasksConfig = MasksConfig()
    retrain: RetrainConfig = RetrainConfig()
    predict: PredictConfig = PredictConfig()
    score: ScoreConfig = ScoreConfig()
    pictures: PicturesConfig = PicturesConfig()

    @field_validator("name")
    @classmethod
    def _refuse_repetition(cls, name: str) -> str:
        """The engine takes such a name for a rule that calls itself for ever."""
        if repeated := re.search(r"(.+)\1{19}$", name):
            raise ValueError(
                f"ends in 20 times {repeated[1]!r} (found {name!r}); choose another name"
            )
        return name

    @property
    def cam_splits(self) -> tuple[Split, ...]:
        """Splits that have CAMs and pseudo masks; none in the supervised upper bound."""
        return () if self.supervision == "masks" else tuple(self.cams.splits)

    @property
    def segmented_split(self) -> Split:
        """The split that the segmenter labels: the held-out images, or else those of training."""
        return "val" if self.data.val_list else "train"

    @property
    def needs_seeds(self) -> bool:
        """Whether this run trains a refiner on hard labels, which the stage seeds makes."""
        return self.refine.needs_seeds and self.supervision == "tags"

    @property
    def encoders_besides_clip(self) -> tuple[str, ...]:
        """Frozen encoders besides CLIP that are read, by their sections."""
        return (*self.cams.other_encoders, *self.refine.other_encoders(self.cams))

    @model_validator(mode="before")
    @classmethod
    def _fill_auto(cls, values: Any) -> Any:
        """Replace ``auto`` and what is missing by what demo, chain of methods and variant say."""
        if not isinstance(values, Mapping):
            return values
        values = {key: value for key, value in values.items() if (key, value) != ("shards", AUTO)}
        if _value(values, "data", "kind") == "demo":
            values = overlay(DEMO, values)
        filled = {"shards": values["shards"] if "shards" in values else _parts(values), **values}
        for name, options in _chain_values(values).items():
            section = filled.get(name, {})
            if isinstance(section, Mapping):
                given = {key: value for key, value in section.items() if value != AUTO}
                filled[name] = options | given
        if "masks" in filled:
            filled["masks"] = with_refine(filled["masks"])
        filled = _with_one_backend(filled)
        published = values.get("variant") == "published"
        return fill_variant(cls, filled, "published" if published else "corrected")


def _chain_values(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What ``auto`` means, by section and key, where it depends on other options."""
    published = values.get("variant") == "published"
    method = str(_value(values, "refine", "method"))
    patch_text = published and _value(values, "cams", "source") == "patch_text"
    trained = published and method != "none"
    model = str(_value(values, "retrain", "model"))
    init = RECIPE_INIT.get(model, "random")
    starts_at_random = _value(values, "retrain", "init", auto=init) == "random"
    recipe = RECIPE_BATCH_NORM.get(model, "trained")
    kind = _value(values, "data", "kind")
    excel = method == "excel"
    chain: dict[str, dict[str, Any]] = {
        "compute": _machine_values(values),
        "clip": {
            "keep_ratio": not patch_text,
            "normalization": (
                "imagenet"
                if patch_text
                else published_normalization(method)
                if published
                else "clip"
            ),
        },
        "infer": {
            "mirror_first": not (patch_text and trained and kind == "voc"),
            "average": "image" if excel else "grid",
            "average_share": 0.2 if excel and published and kind == "coco" else 1.0,
        },
        "retrain": {"init": init, "batch_norm": "trained" if starts_at_random else recipe},
    }
    if patch_text:
        chain["clip"]["position_rounding"] = "float32"
        chain["cams"] = {"scaling": "exact"}
    return chain


def _machine_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``auto`` means in the section ``compute``, on this machine; changes no result."""
    section = values.get("compute", {})
    if isinstance(section, Mapping) and section.get("workers", AUTO) != AUTO:
        return {}  # the machine need not be asked
    return {"workers": auto_workers(str(_value(values, "compute", "device")))}


def _parts(values: Mapping[str, Any]) -> int:
    """What ``auto`` means for ``shards``: by the results, the data and this machine."""
    if count := parts_on_disk(str(values.get("name", Config.model_fields["name"].default))):
        return count
    data = {key: str(_value(values, "data", key)) for key in ("kind", "root", "train_list", "tags")}
    gpus = planned_gpus(str(_value(values, "compute", "device")))
    return suitable_shards(count_images(data), gpus)


_OTHER_CRFS = (("seeds", "crf"), ("predict", "crf_settings"), ("refine", "weakclip", "boundary"))
_OPTIONAL = ("crf_settings",)  # null = those of masks.crf


def _with_one_backend(values: dict[str, Any]) -> dict[str, Any]:
    """Give every CRF the backend of ``masks.crf``, where it has none of its own."""
    section: Any = values
    for key in ("masks", "crf", "backend"):
        section = section.get(key) if isinstance(section, Mapping) else None
    if section in get_args(CrfBackend):
        for path in _OTHER_CRFS:
            values = _with_backend(values, path, section)
    return values


def _with_backend(values: Any, path: Sequence[str], backend: str) -> Any:
    """Values with a backend in the section at ``path``; no mapping is left to the validation."""
    if not isinstance(values, Mapping):
        return values
    if not path:
        return (
            dict(values) if values.get("backend", AUTO) != AUTO else {**values, "backend": backend}
        )
    inner = values.get(path[0], None if path[0] in _OPTIONAL else {})
    return {**values, path[0]: _with_backend(inner, path[1:], backend)}


def _value(values: Mapping[str, Any], section: str, key: str, *, auto: Any = None) -> Any:
    """A value as a user wrote it, or its default; ``auto`` for that word and what is missing."""
    default = getattr(Config.model_fields[section].default, key) if auto is None else AUTO
    options = values.get(section, {})
    value = (
        options.get(key, default)
        if isinstance(options, Mapping)
        else getattr(options, key, default)
    )
    return auto if auto is not None and value == AUTO else value
