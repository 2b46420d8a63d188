"""The supervised upper bound through the workflow: its jobs, which no weak run has."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.artifacts.checkpoint_header import checkpoint_provenance
from wsss.artifacts.shard import Shard

from .conftest import RUN, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_only_a_run_that_asks_for_it_learns_from_pixel_labels(finished: Project) -> None:
    """The manifest is that of the weakly supervised run; there are no CAMs and no pseudo masks."""
    upper, data = f"results/{RUN}/upper", finished.root / "results/tiny-data"
    finished.configure(runs={"upper": {"supervision": "masks"}})
    try:
        taught = {"truth_masks": 2, "refine_train": 1, "retrain": 1}
        predicted = {"refine_predict": 2, "predict": 2}
        predicted |= {f"{rule}_nothing": count for rule, count in predicted.items()}
        scored = {"score_refiner_prediction": 1, "score_segmenter": 1}
        shown = {"table": 1, "sweep_table": 1, "efficiency": 1}
        drawn = {"class_chart": 1, "contact_sheet": 1, "page": 1, "loss_curve": 2}
        assert finished.would_run() == taught | predicted | scored | shown | drawn
        weak = f"results/{RUN}/truth_masks/train/1-of-2.h5"
        refused = finished.snakemake("--dry-run", "--", weak, check=False)
        assert "MissingRuleException" in refused.stdout + refused.stderr
        weights = f"{upper}/segmenter/weights.safetensors"
        finished.snakemake("--", weights)
        assert checkpoint_provenance(finished.root / weights).supervision == "masks"
        with Shard(finished.root / upper / "truth_masks/train/1-of-2.h5") as shard:
            assert shard.ids
            for item in shard:
                truth = np.asarray(Image.open(data / f"SegmentationClass/{item.id}.png"))
                np.testing.assert_array_equal(item.arrays["train"], truth)
    finally:
        shutil.rmtree(finished.root / upper, ignore_errors=True)
        finished.configure()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Only scores and pictures opened pixel labels. No training used one."),
        ({"supervision": "masks"}, "upper bound: its trainings used pixel labels."),
    ],
)
def test_the_report_says_what_used_pixel_labels(
    finished: Project, tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    report = tmp_path / "report.html"
    finished.configure(**changes)
    try:
        weights = f"results/{RUN}/segmenter/weights.safetensors"
        finished.snakemake("--report", str(report), "--", weights)
    finally:
        finished.configure()
    assert sentence in report.read_text()
