"""Checkpoints of networks for the demo's classes, as the stages write them; not trained."""

from pathlib import Path

import torch

from wsss.artifacts.checkpoint import save_checkpoint
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.stage import STAGES
from wsss.clip.input import EncoderInput
from wsss.config.load import from_mapping
from wsss.data.datasets.classes import class_list
from wsss.refine.load import build_refiner, model_facts

DEMO = class_list("demo")
LABELS = ("background", *DEMO.names)
PREDICT = {"scales": [0.5, 1.0], "average": "logits"}
"""How the run of the segmenter predicts: not as by default."""


def write_refiner(path: Path, method: str = "weclip") -> Path:
    """A refiner on the demo's CLIP."""
    config = from_mapping({"refine": {"method": method}})
    values = STAGES["refine_train"].select(config)
    inputs = EncoderInput(config.clip, device="cpu")
    sections = {name: values[name] for name in ("clip", "cams", "refine", "prompts")}
    refiner = build_refiner(inputs, DEMO, **sections)
    weights = {"clip": inputs.clip.digest}
    provenance = STAGES["refine_train"].provenance(values, weights=weights)
    save_checkpoint(path, refiner.trained.state_dict(), provenance, facts=model_facts(DEMO))
    return path


def write_segmenter(path: Path) -> Path:
    """A SegFormer-B0."""
    from wsss.retrain.architecture import build_model, model_config
    from wsss.retrain.segmenter import segmenter_facts

    segformer = {"model": "segformer-b0", "crop": 96}
    config = from_mapping({"retrain": segformer, "predict": PREDICT})
    retrain = config.retrain
    torch.manual_seed(0)
    network = build_model(model_config(retrain.model, labels=len(LABELS), crop=retrain.crop))
    provenance = Provenance(stage="retrain", config={}, seed=0, code="", packages={}, weights={})
    facts = segmenter_facts(network, retrain, config.predict, LABELS).model_dump(mode="json")
    save_checkpoint(path, network.state_dict(), provenance, facts)
    return path
