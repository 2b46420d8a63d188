"""The whole configuration, in the order in which data walks through the stages.

Every field has a default, and the defaults together are the embedded demo. `config.yaml` and the
JSON schema are generated from it (`wsss config default`, `wsss config schema`). Sections lie in
modules beside this one.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Variant
from wsss.config.cams import CamsConfig
from wsss.config.clip import ClipConfig
from wsss.config.data import DataConfig
from wsss.config.labels import MasksConfig, SeedsConfig
from wsss.config.matrix import MatrixConfig
from wsss.config.refine import InferConfig, RefineConfig
from wsss.config.retrain import PredictConfig, RetrainConfig
from wsss.config.score import PicturesConfig, ScoreConfig


class ComputeConfig(Section):
    """How the work is done; nothing here changes a result on the CPU."""

    device: str = Field(
        "auto",
        pattern=r"^[a-z]+(:[0-9]{1,3})?$",
        description="auto (CUDA if there is one, else CPU), cpu, cuda, cuda:1 …",
    )
    batch: PositiveInt = Field(
        8, description="Images a batch where images are only looked at (CAMs, prediction)."
    )
    workers: PositiveInt = Field(
        2, le=1024, description="Processes or threads that decode images and run CRFs, per job."
    )


class Config(Section):
    """A run: everything below decides what ends up in results/<name>/."""

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
            "Runs that differ in one key each, e.g. {refine.weakclip.prompts: [2, 4, 8]}: one run "
            "a value (of several keys: each combination) in results/<name>/<key>-<value>/, and a "
            "table of all. They share the manifest, and CAMs where these are the same."
        ),
    )
    runs: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description=(
            "Runs by name with what is laid over this configuration, e.g. {plain: {cams: "
            "{affinity: {enabled: false}}}}; compared like those of a sweep, with which they "
            "combine."
        ),
    )
    matrix: MatrixConfig = MatrixConfig()
    variant: Variant = Field(
        "corrected",
        description=(
            "corrected: what a user should run; published: every departure as the authors ran it."
        ),
    )
    shards: PositiveInt = Field(
        2, le=100_000, description="Parts into which each split is cut; one job a part and stage."
    )
    compute: ComputeConfig = ComputeConfig()
    data: DataConfig = DataConfig()
    clip: ClipConfig = ClipConfig()
    cams: CamsConfig = CamsConfig()
    seeds: SeedsConfig = SeedsConfig()
    refine: RefineConfig = RefineConfig()
    infer: InferConfig = InferConfig()
    masks: MasksConfig = MasksConfig()
    retrain: RetrainConfig = RetrainConfig()
    predict: PredictConfig = PredictConfig()
    score: ScoreConfig = ScoreConfig()
    pictures: PicturesConfig = PicturesConfig()

    def chain_values(self) -> dict[str, dict[str, Any]]:
        """What ``auto`` stands for, by section and key, where that hangs on the chain of methods.

        Everything else that is ``auto`` is resolved by the variant alone.
        """
        published = self.variant == "published"
        excel = published and self.cams.source == "patch_text"
        trained = published and self.refine.method != "none"
        values: dict[str, dict[str, Any]] = {
            "clip": {
                "shape": "square" if excel else "kept",
                "normalization": "imagenet" if excel or trained else "clip",
            },
            "infer": {"mirror_first": not (excel and trained and self.data.kind == "voc")},
        }
        if excel:
            values["clip"]["position_rounding"] = "float32"
            values["cams"] = {"scaling": "exact"}
        return values
