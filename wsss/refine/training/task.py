"""What a training learns, as a digest: what an interrupted one goes on by."""

from __future__ import annotations

from wsss.artifacts.code_digest import code_digest
from wsss.artifacts.digest import digest_json
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.refine.inputs import CamSet


def training_task(config: Config, classes: ClassList, cams: CamSet, extra: object = None) -> str:
    """Digest of all that decides what is learned.

    Args:
        config: seed, clip, cams and refine.
        classes: the data set's classes.
        cams: the training images.
        extra: what else decides it, for JSON.
    """
    sections = {n: getattr(config, n).model_dump(mode="json") for n in ("clip", "cams", "refine")}
    code = code_digest([f"wsss.refine.{config.refine.method}"])
    parts = [sections, config.seed, code, cams.inputs, cams.weights, list(classes.names)]
    return digest_json(parts if extra is None else [*parts, extra])
