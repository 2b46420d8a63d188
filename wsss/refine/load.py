"""Build a refiner: anew from its options, or with what was trained from a checkpoint alone."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.checkpoint_header import checkpoint_facts, checkpoint_provenance
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.staleness import refuse_other_supervision
from wsss.cams.other_features import PatchEncoder
from wsss.clip.input import EncoderInput
from wsss.clip.load import LoadedClip
from wsss.compute import seeding
from wsss.compute.precision import autocast_calls
from wsss.config.base import Section, Supervision
from wsss.config.cams import CamsConfig
from wsss.config.clip import ClipConfig, DinoConfig, encoder_module
from wsss.config.compute import ComputeConfig
from wsss.config.infer import InferConfig
from wsss.config.refine import RefineConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.images.label_png import voc_palette
from wsss.errors import WsssError
from wsss.refine.base import Refiner, Setup
from wsss.refine.registry import method_encoders, method_module


class Sections(TypedDict):
    """What the refine stages read of the configuration, but seed, ``infer`` and ``masks.crf``."""

    supervision: Supervision
    max_pixels: int
    kind: str
    root: str
    prompts: Mapping[str, str]
    clip: ClipConfig
    dino: DinoConfig
    cams: CamsConfig
    refine: RefineConfig
    compute: ComputeConfig


def configured_refiner(
    sections: Sections,
    classes: ClassList,
    cache: Path,
    *,
    infer: InferConfig | None = None,
    seed: int = 0,
) -> Refiner[Any]:
    """See `build_refiner`; with the configured encoder, and embeddings in the cache folder.

    What it trains computes in the precision in force.
    """
    clip, device, refine = sections["clip"], sections["compute"].device, sections["refine"]
    settings: dict[str, Section] = {"dino": sections["dino"]}
    refiner = build_refiner(
        EncoderInput(clip, cache, max_pixels=sections["max_pixels"], device=device),
        classes,
        clip=clip,
        cams=sections["cams"],
        refine=refine,
        prompts=sections["prompts"],
        encoders=load_encoders(refine, sections["cams"], settings, cache, device=device),
        infer=infer,
        seed=seed,
        embeddings=cache,
        workers=sections["compute"].workers,
    )
    autocast_calls(refiner.trained, refiner.encoder.device)
    return refiner


def build_refiner(
    encoder_input: EncoderInput,
    classes: ClassList,
    *,
    clip: ClipConfig,
    cams: CamsConfig,
    refine: RefineConfig,
    prompts: Mapping[str, str],
    encoders: Mapping[str, PatchEncoder] | None = None,
    infer: InferConfig | None = None,
    seed: int = 0,
    embeddings: Path | None = None,
    workers: int = 1,
) -> Refiner[Any]:
    """The configured refiner with a random start, which is a function of the seed.

    Args:
        encoder_input: the encoder that ``clip`` describes.
        clip: its template of prompts is read.
        cams: how the CAMs are computed.
        refine: method, options and side of the training crop.
        prompts: ``data.prompts``, which ``classes`` has already taken up.
        encoders: the frozen encoders besides CLIP that the method reads, from `load_encoders`.
        infer: how photos are predicted; None: the defaults.
        seed: of the start.
        embeddings: folder in which text embeddings are cached.
        workers: processes that a training step may use besides this one.
    """
    setup: Setup[Any] = Setup(
        options=refine.options,
        encoder_input=encoder_input,
        classes=classes,
        template=clip.template,
        crop=refine.train.crop,
        cams=cams,
        infer=infer or InferConfig(),
        encoders=encoders or {},
        prompts=prompts,
        embeddings=embeddings,
        workers=workers,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeding.seed_number(seed, seeding.NETWORK, 0))
        return refiner_class(refine.method)(setup)


def load_encoders(
    refine: RefineConfig,
    cams: CamsConfig,
    sections: Mapping[str, Section],
    cache: Path | None,
    *,
    device: str = "auto",
) -> dict[str, PatchEncoder]:
    """The frozen encoders besides CLIP that the configured method reads, by name.

    Args:
        sections: of these encoders, by name.

    Raises:
        ValueError: an encoder's model cannot be built, or its weights cannot be had.
    """
    encoders: dict[str, PatchEncoder] = {}
    for name in method_encoders(refine.method, cams):
        module = importlib.import_module(encoder_module(name))
        encoders[name] = module.configured(sections[name], cache, device=device)
    return encoders


def load_state(refiner: Refiner[Any], checkpoint: Path, method: str) -> Provenance:
    """Give a refiner what was trained, and set evaluation mode; gives the provenance.

    Raises:
        ArtifactError: the checkpoint is damaged, or of another class list, encoder or network.
    """
    tensors, provenance = load_checkpoint(checkpoint)
    for name, actual in refiner.frozen_weights().items():
        if (expected := provenance.weights.get(name)) != actual:
            raise ArtifactError(
                f"{checkpoint}: was trained with {name.upper()} weights of sha256 {expected}, "
                f"these have {actual}; use the weights of the training, or train again"
            )
    try:
        refiner.trained.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtifactError(
            f"{checkpoint}: is of another class list, encoder or refine.{method} ({error}); "
            "rerun refine-train"
        ) from None
    refiner.train_mode(refiner.draws_at_inference)
    return provenance


def refiner_sources(checkpoint: Path, sections: Sections) -> dict[Path, Provenance]:
    """How the refiner was made here; one that was trained elsewhere has settings of its own.

    Raises:
        ArtifactError: the checkpoint is missing, is none of this pipeline, or is a supervised upper
            bound and the run is not, or the other way round.
    """
    refine, provenance = sections["refine"], checkpoint_provenance(checkpoint)
    refuse_other_supervision(checkpoint, provenance, sections["supervision"])
    copied = refine.checkpoint is not None and provenance.stage != "refine_import"
    return {} if copied else {checkpoint: provenance}


def model_facts(classes: ClassList) -> dict[str, Any]:
    """What `from_checkpoint` needs besides the provenance, for the checkpoint's header."""
    palette = voc_palette()[: classes.label_count]
    return {"classes": asdict(classes), "palette": palette}


def from_checkpoint(
    checkpoint: Path,
    *,
    clip: LoadedClip | None = None,
    infer: InferConfig | None = None,
    device: str = "auto",
    cache: Path | None = None,
) -> Refiner[Any]:
    """A trained refiner, ready to predict photos: see `Refiner.probabilities`.

    What it trained computes in the precision in force.

    Args:
        checkpoint: what ``wsss refine-train`` or ``refine-import`` wrote.
        clip: the encoder's model; None loads the one that it was trained with.
        infer: scales, mirroring, windows; None: the defaults.
        cache: folder for downloaded weights and text embeddings.

    Raises:
        ArtifactError: the checkpoint is damaged, or the encoder has other weights than in training.
        ClipLoadError: the encoder's weights are not there.
        DinoLoadError: those of DINOv2 are not, where the method reads it.
    """
    _, provenance = load_checkpoint(checkpoint)
    sections, facts = provenance.config, checkpoint_facts(checkpoint)
    if provenance.stage == "retrain":
        raise ArtifactError(
            f"{checkpoint}: is no refiner's checkpoint but a segmenter's; wsss.load_segmenter "
            "reads it"
        )
    if "refine" not in sections or "classes" not in facts:
        raise ArtifactError(
            f"{checkpoint}: is no refiner's checkpoint, or of an older version; rerun refine-train"
        )
    refine = RefineConfig.model_validate(sections["refine"])
    settings = ClipConfig.model_validate(sections["clip"])
    others: dict[str, Section] = {"dino": DinoConfig.model_validate(sections.get("dino", {}))}
    cams = CamsConfig.model_validate(sections["cams"])
    encoder_input = EncoderInput(settings, cache, device=device, clip=clip)
    classes: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in facts["classes"].items()
    }
    refiner = build_refiner(
        encoder_input,
        ClassList(**classes),
        clip=settings,
        cams=cams,
        refine=refine,
        prompts=sections["data.prompts"],
        encoders=load_encoders(refine, cams, others, cache, device=device),
        infer=infer,
        embeddings=cache,
    )
    load_state(refiner, checkpoint, refine.method)
    autocast_calls(refiner.trained, refiner.encoder.device)
    return refiner


def refiner_class(method: str) -> type[Refiner[Any]]:
    """The class of a method: the one subclass of `Refiner` that its ``method.py`` defines.

    Raises:
        WsssError: it defines none or several.
    """
    module = importlib.import_module(method_module(method))
    refiners = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Refiner)
        and value.__module__ == module.__name__
    ]
    if len(refiners) != 1:
        names = ", ".join(refiner.__name__ for refiner in refiners) or "none"
        raise WsssError(
            f"{module.__file__}: subclasses of Refiner that it defines: {names}; expected one: "
            "a base of your own belongs into another module"
        )
    return refiners[0]
