"""What a score attests: the values of every stage up to the product, and those steps in words."""

from __future__ import annotations

from dataclasses import dataclass

from wsss.config.base import LearnedFrom, Supervision
from wsss.config.cams import CamsConfig
from wsss.config.clip import ClipConfig, DinoConfig
from wsss.config.data import DataConfig, TagNoiseConfig
from wsss.config.infer import InferConfig
from wsss.config.labels import BackgroundConfig, CrfConfig, MasksConfig, SeedsConfig
from wsss.config.refine import RefineConfig
from wsss.config.retrain import PredictConfig, RetrainConfig
from wsss.config.score import ScoreConfig
from wsss.score.product import ProductName


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``score_<product>`` of `wsss.artifacts.stage` reads.

    These are the values of every stage up to the product; those of later stages are None. All go
    into the provenance, so that runs which differ in more than their seed can be told apart.
    """

    name: str
    seed: int
    variant: str
    score: ScoreConfig
    data: DataConfig
    tag_noise: TagNoiseConfig
    supervision: Supervision = "tags"
    clip: ClipConfig | None = None
    dino: DinoConfig | None = None
    cams: CamsConfig | None = None
    seeds: SeedsConfig | None = None
    refine: RefineConfig | None = None
    infer: InferConfig | None = None
    masks: MasksConfig | None = None
    background: BackgroundConfig | None = None
    crf: CrfConfig | None = None
    retrain: RetrainConfig | None = None
    predict: PredictConfig | None = None

    @property
    def learned_from(self) -> LearnedFrom:
        """What taught the product."""
        corrected = self.supervision == "tags" and self.retrain and self.retrain.corrected
        return "mixed" if corrected else self.supervision


def method_before(product: ProductName, settings: Settings) -> str:
    """Name of the refiner that came before or is scored; none where the truth taught it."""
    if settings.refine is None or (settings.supervision == "masks" and product == "segmenter"):
        return "none"
    return settings.refine.method


def steps(product: ProductName, settings: Settings) -> str:
    """The steps that made the product, for people."""
    if settings.supervision == "masks":
        network = settings.retrain.model if settings.retrain else method_before(product, settings)
        return f"pixel labels → {network}"
    if settings.cams is None:
        return "centred blob"
    parts = ["tags of masks"] * (settings.data.tags == "masks")
    parts += ["tags changed on purpose"] * settings.tag_noise.enabled + [settings.cams.source]
    if product != "cam" and settings.cams.has_affinity:
        kind = settings.cams.affinity.kind
        parts.append("affinity" if kind == "attention" else f"{kind} affinity")
    if settings.refine and settings.refine.is_trained:
        parts.append(settings.refine.method)
    if product == "seeds":
        parts.append("seeds")
    if settings.masks:
        masks = settings.masks
        parts += ["masks", *["PAR"] * masks.par, *["CRF"] * masks.crf.enabled]
        parts += ["proposals of SAM"] * (masks.refine == "sam")
    if settings.retrain:
        parts += ["some corrected"] * bool(settings.retrain.corrected)
        parts.append(settings.retrain.model)
    return " → ".join(parts)
