"""What a stage depends on, declared once: for the workflow's rules and for the running stage.

The rules take two parameters from a `Stage`: the values of the configuration that it reads, and the
digest of the code that it runs. The running stage is given those values and no others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.artifacts.code_digest import code_digest, imported_packages
from wsss.artifacts.provenance import Provenance, merged_chains, package_versions, weight_files
from wsss.artifacts.staleness import refuse_other_supervision, seed_difference, setting_differences
from wsss.compute.numerics import recorded_device, recorded_precision, watched_precision
from wsss.config.base import drop_key, learned_from, plain_value, value_at

_log = logging.getLogger(__name__)
_IDLE_AT_INGEST = (
    "data.quarantine_limit",  # lets work pass or refuses it
    "cams.splits",  # says which files are made
    "refine.train.checkpoint_every",  # say how much an interruption costs
    "retrain.checkpoint_every",
    "refine.train.snapshots_every",  # says which states are kept
)
"""Values that are read, but that change nothing in what a stage writes."""
_IDLE = (*_IDLE_AT_INGEST, "data.max_pixels")
"""Later stages meet no larger photo."""
_MOST = 3  # differences that a message tells


@dataclass(frozen=True)
class Stage:
    """The declared dependencies of a stage."""

    name: str
    modules: tuple[str, ...]
    """Entry modules; the code digest covers all that they import inside the package."""
    reads: tuple[str, ...] = ()
    """Keys of the configuration: whole sections (``clip``) or single values (``masks.crf``). The
    section ``compute`` is not among them: of it, the precision alone changes results."""
    idle: tuple[str, ...] = _IDLE
    """Of what ``reads`` covers, what changes nothing in what the stage writes: it is part of no key
    and no provenance."""
    watches: tuple[str, ...] = ()
    """Of the idle values, those whose change reruns the stage all the same."""

    def select(self, config: Any) -> dict[str, Any]:
        """The values that the stage reads, by the last part of their key."""
        return {key.rpartition(".")[2]: value_at(config, key) for key in self.reads}

    def arguments(self, config: Any) -> dict[str, Any]:
        """The keyword arguments of the stage's function: `select`, and the section ``compute``."""
        return self.select(config) | {"compute": config.compute}

    def watched(self, config: Any) -> dict[str, Any]:
        """The values whose change reruns the stage, by key, as plain values for JSON."""
        values = {key: value_at(config, key) for key in self.reads}
        active = self._active(values, idle=[key for key in self.idle if key not in self.watches])
        return active | watched_precision(self.name, config.compute.precision)

    def values(self, config: Any) -> dict[str, Any]:
        """All values that the stage reads, as plain values in nested sections, for JSON."""
        plain: dict[str, Any] = {}
        for key in self.reads:
            section, _, name = key.partition(".")
            inside = plain.setdefault(section, {}) if name else plain
            inside[name or section] = plain_value(value_at(config, key))
        return plain

    def provenance(
        self,
        values: Mapping[str, Any],
        *,
        modules: Iterable[str] = (),
        weights: Mapping[str, str] | None = None,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        sources: Mapping[Path, Provenance] | None = None,
        learned: Mapping[str, int] | None = None,
    ) -> Provenance:
        """The provenance of what the stage writes.

        Args:
            values: what `select` gives.
            modules: further entry modules, which the configuration chooses.
            weights: sha256 of the weight files that it uses, by name.
            inputs: digests of the artifacts that it reads, by name.
            outputs: sha256 of files that it writes next to the artifact, by name.
            sources: the provenance of the artifacts that it reads, by their files. Values that
                this stage reads, too, and that were others when those were made, are logged.
            learned: see `Provenance.learned`.

        Raises:
            ArtifactError: a source is of the other ``supervision`` than this stage is given.
        """
        selected = {key: values[key.rpartition(".")[2]] for key in self.reads}
        config = self._active(selected, idle=self.idle) | recorded_precision()
        seed = config.pop("seed", 0)  # without one nothing is random
        entries = (*self.modules, *modules)
        sources = sources or {}
        provenance = Provenance(
            stage=self.name,
            config=config,
            seed=seed,
            code=code_digest(entries),
            packages=package_versions(imported_packages(entries)),
            weights=dict(weights or {}),
            inputs=dict(inputs or {}),
            files=weight_files(config),
            outputs=dict(outputs or {}),
            device=recorded_device(),
            learned=dict(learned or {}),
            upstream=merged_chains(sources.values()),
        )
        for path, source in sources.items():
            if "supervision" in config:
                refuse_other_supervision(path, source, learned_from(config))
            if differences := source_differences(source, provenance):
                _log.warning(
                    "%s. Scores refuse what is made from it", difference_text(path, differences)
                )
        return provenance

    def _active(self, values: Mapping[str, Any], *, idle: Sequence[str]) -> dict[str, Any]:
        """Plain values by key, without those that are idle."""
        skipped = {*idle, *_unused(values)}
        plain = {key: plain_value(value) for key, value in values.items() if key not in skipped}
        for path in idle:
            for key, value in plain.items():
                if path.startswith(f"{key}."):
                    drop_key(value, path.removeprefix(f"{key}."))
        return plain


def _unused(values: Mapping[str, Any]) -> Iterator[str]:
    """Keys that other values leave unused: encoders that neither CAMs nor networks read, a CRF."""
    if "masks.crf" in values:  # of predictions: they may have no CRF, or one of their own
        settings = values.get("infer") or values["predict"]
        if not settings.crf or getattr(settings, "crf_settings", None):
            yield "masks.crf"
    if "dino" in values:
        cams, refine = values["cams"], values.get("refine")
        if "dino" not in cams.other_encoders + (refine.other_encoders(cams) if refine else ()):
            yield "dino"
    if "retrain" in values and not values["retrain"].uses_clip:
        yield from _CLIP  # of the stage retrain, whereas others have the whole section


def source_differences(source: Provenance, reader: Provenance) -> dict[str, list[str]]:
    """How the chain of an artifact differs from what its reader is given, by stage, as sentences.

    Args:
        reader: of what is made from it; settings, seed and weight files that both have count.
    """
    differences: dict[str, list[str]] = {}
    for entry in source.chain():
        sentences = list(setting_differences(entry, reader))
        if _draws(entry.stage) and _draws(reader.stage):
            sentences += seed_difference(entry.seed, reader.seed)
        if sentences:
            differences.setdefault(entry.stage, []).extend(sentences)
    return differences


def difference_text(path: Path, differences: Mapping[str, Sequence[str]]) -> str:
    """The message about an artifact that was made in another way.

    Args:
        differences: by stage, see `source_differences`.
    """
    rules = [stage for stage in STAGES if stage in differences]
    first: dict[str, str] = {}  # the same difference of later stages follows from that
    for stage in dict.fromkeys([*rules, *differences]):
        for text in differences[stage]:
            first.setdefault(text, f"its stage {stage} was {text}")
    texts = list(first.values())
    more = f"; and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return (
        f"{path}: {'; '.join(texts[:_MOST])}{more}; make it again: snakemake --cores all "
        f"--forcerun {' '.join(rules)} (with the same --configfile), or use the configuration that "
        "it was made with"
    )


def _draws(stage: str) -> bool:
    """Whether a stage depends on the seed."""
    return stage in STAGES and "seed" in STAGES[stage].reads


_CRF_OF_PREDICTION = ("infer.crf", "infer.crf_labels")
_REFINE = (
    *("supervision", "data.max_pixels", "data.kind", "data.root", "data.prompts"),
    *("clip", "dino", "cams", "refine"),
)
_LABELS = ("seed", *_REFINE, "data")
_REFINE_IDLE = (*_IDLE, "data.kind", "data.root")
"""The list of images to repeat is found by them; the training's key holds its content."""
_SCORE = ("name", "seed", "variant", "score", "data", "tag_noise")
_SHOWN = ("name", "supervision", "data", "pictures")
_CAMS = ("clip", "dino", "cams")
_CLIP = ("clip.model", "clip.pretrained")
_REFINED = ("supervision", *_CAMS, "seeds", "refine", "infer")
_SCORED: dict[str, tuple[str, ...]] = {
    "blob": ("masks.background",),
    "cam": (*_CAMS, "masks.background"),
    "affinity": (*_CAMS, "masks.background"),
    "seeds": (*_CAMS, "seeds"),
    "refiner_scores": (*_REFINED, "masks.background"),
    "masks": (*_REFINED, "masks"),
    "refiner_prediction": (*_REFINED, "masks.crf"),
    "segmenter": (*_REFINED, "masks", "retrain", "predict"),
}
"""What scoring reads by product: the sections of every stage up to it."""
_SCORED_IDLE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("refiner_scores", "masks", "segmenter"), _CRF_OF_PREDICTION),
    "refiner_prediction": ("infer.scores",),
}
"""What the stages up to a product do not use of these sections."""

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("demo", ("wsss.demo.dataset",)),
        Stage("mask_tags", ("wsss.score.truth.mask_tags",), ("data",), idle=_IDLE_AT_INGEST),
        Stage("coco_masks", ("wsss.score.truth.coco_masks",)),
        Stage("truth_masks", ("wsss.score.truth.training_masks",), ("supervision", "data")),
        Stage("corrected_masks", ("wsss.score.truth.corrected",), ("retrain.corrected",)),
        Stage(
            "ingest",
            ("wsss.data.ingest.stage",),
            ("variant", "data"),
            idle=(*_IDLE_AT_INGEST, "data.coco_truth"),
            watches=("data.quarantine_limit",),
        ),
        Stage("tag_noise", ("wsss.clip.tags.stage",), ("tag_noise", "data.max_pixels", "clip")),
        Stage("clip_tags", ("wsss.clip.tags.predicted",), ("data.max_pixels", "clip")),  # a part
        Stage("cams", ("wsss.cams.stage",), ("data.max_pixels", *_CAMS)),
        Stage("seeds", ("wsss.masks.seeds_stage",), ("data.max_pixels", "cams", "seeds")),
        Stage("image_labels", ("wsss.refine.training.image_labels",)),  # a part of refine_train
        Stage(
            "refine_train",
            ("wsss.refine.stage",),
            ("seed", *_REFINE),
            idle=_REFINE_IDLE,
            watches=("refine.train.snapshots_every",),
        ),
        Stage("refine_import", ("wsss.refine.released.importer",), _REFINE, idle=_REFINE_IDLE),
        Stage(
            "refine_apply",
            ("wsss.refine.stage",),
            (*_REFINE, "infer"),
            idle=(*_REFINE_IDLE, *_CRF_OF_PREDICTION),
        ),
        Stage(
            "refine_predict",
            ("wsss.refine.predict",),
            (*_REFINE, "infer", "masks.crf"),
            idle=(*_REFINE_IDLE, "infer.scores"),
        ),
        Stage("refine_labels", ("wsss.score.label_quality",), _LABELS, idle=_IDLE_AT_INGEST),
        Stage("masks", ("wsss.masks.stage",), ("supervision", "data.max_pixels", "masks")),
        Stage(
            "retrain",
            ("wsss.retrain.train",),
            ("seed", "supervision", "data.max_pixels", "retrain", "predict", *_CLIP),
            idle=(*_IDLE, "predict"),  # the checkpoint notes it, beside the weights
        ),
        Stage(
            "predict",
            ("wsss.retrain.predict",),
            ("supervision", "data.max_pixels", "masks.crf", "retrain", "predict"),
        ),
        Stage("submission", ("wsss.score.submission",)),
        *(
            Stage(
                f"score_{product}",
                ("wsss.score.stage",),
                (*_SCORE, *reads),
                idle=(*_IDLE_AT_INGEST, *_SCORED_IDLE.get(product, ())),
            )
            for product, reads in _SCORED.items()
        ),
        Stage("table", ("wsss.score.tables.write", "wsss.score.tables.classes")),
        Stage("comparison", ("wsss.score.tables.comparison",)),
        Stage("paper_table", ("wsss.score.papers.render",)),
        Stage("efficiency", ("wsss.score.tables.efficiency",)),
        Stage("pictures", ("wsss.score.figures.contact_sheet",), _SHOWN, idle=_IDLE_AT_INGEST),
        Stage("page", ("wsss.score.page.build",), _SHOWN, idle=_IDLE_AT_INGEST),
        Stage("gallery", ("wsss.photos.stage",), ("name", "data.max_pixels", "clip.long_side")),
        Stage("photo_predict", ("wsss.photos.predict",)),  # by hand alone
        Stage("charts", ("wsss.score.figures.curves", "wsss.score.figures.lines")),
    )
}
"""Every stage by its name, in the order in which data walks through them."""
