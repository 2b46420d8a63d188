"""Which stages read a value; `tests/workflow/test_dag.py` checks a sample in the workflow."""

from typing import Any

import pytest

from tests.builders import clip_es_config
from wsss.artifacts.stage import STAGES
from wsss.pipeline.stages import stage_sections

WECLIP = {"refine": {"method": "weclip"}}
REFINE = {"refine_train", "refine_apply", "refine_predict", "refine_labels"}
TAGS = {"tag_noise", "clip_tags"}
REFINED = {f"score_{p}" for p in ("refiner_scores", "masks", "refiner_prediction", "segmenter")}
CAMS = {"score_cam", "score_affinity", "score_seeds"}
LOOKING = {"mask_tags", "pictures", "page", "refine_labels"}
"""Stages that look for truth or photos."""
SCORES = {stage for stage in STAGES if stage.startswith("score_")}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"retrain": {"lr": 1e-5}}, {"retrain", "predict", "score_segmenter"}),
        (
            {"retrain": {"corrected": "masks"}},
            {"corrected_masks", "retrain", "predict", "score_segmenter"},
        ),
        ({"masks": {"min_confidence": 0.5}}, {"masks", "score_masks", "score_segmenter"}),
        ({"infer": {"scales": [1.0]}}, {"refine_apply", "refine_predict"} | REFINED),
        (
            {"cams": {"affinity": {"power": 1}}},
            {"cams", "seeds", "refine_import"} | REFINE | REFINED | CAMS,
        ),
        (
            {"clip": {"template": ["a photo of a {}."]}},
            {"cams", "refine_import"} | REFINE | REFINED | CAMS | TAGS,
        ),
        ({"pictures": {"contact_images": 3}}, {"pictures", "page"}),
        ({"compute": {"workers": 2, "batch": 3}}, set()),
        ({"data": {"quarantine_limit": 0.5}}, {"ingest"}),
        ({"data": {"max_pixels": 10**6}}, {"ingest", *LOOKING} | SCORES),
        ({"data": {"root": "elsewhere"}}, {"ingest", "truth_masks", *LOOKING} | SCORES),
        ({"data": {"coco_truth": "voc_style"}}, {"truth_masks"} | LOOKING | SCORES),
        (
            {"supervision": "masks"},
            {"truth_masks", "refine_import", "masks", "retrain", "predict"}
            | {"refine_labels", "pictures", "page"}
            | REFINE
            | REFINED,
        ),
        ({"cams": {"splits": ["train"]}}, set()),
        ({"refine": {"method": "weclip", "train": {"checkpoint_every": 7}}}, set()),
        ({"retrain": {"checkpoint_every": 7}}, set()),
        ({"shards": 5}, set()),
        ({"infer": {"crf": False}}, {"refine_predict", "score_refiner_prediction"}),
        (
            {"infer": {"scores": "cam"}},
            {"refine_apply"} | REFINED - {"score_refiner_prediction"},
        ),
        ({"retrain": {"threads": 1}}, {"retrain", "predict", "score_segmenter"}),
        ({"seed": 5}, {"refine_train", "refine_labels", "retrain"} | SCORES),
        ({"tag_noise": {"dropped": 0.5}}, {"tag_noise"} | SCORES),
        ({"tag_noise": {"seed": 5, "threshold": 0.5}}, set()),  # nothing is drawn
        ({"refine": {"method": "weclip", "train": {"snapshots_every": 7}}}, {"refine_train"}),
    ],
)
def test_the_stages_that_read_a_value(change: dict[str, Any], stages: set[str]) -> None:
    before, after = clip_es_config(WECLIP), clip_es_config(WECLIP | change)
    unread = {n for n in STAGES if stage_sections(n, before) == stage_sections(n, after)}
    assert set(STAGES) - unread == stages
