"""Corrected masks through the workflow: the training and what follows run again, nothing else."""

import shutil

import numpy as np
import pytest
from PIL import Image

from wsss.artifacts.checkpoint_header import checkpoint_provenance
from wsss.data.images.label_png import read_label_png, save_label_png
from wsss.data.manifest_folder import load

from .conftest import RUN, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_an_edited_mask_trains_again_and_makes_nothing_before(finished: Project) -> None:
    manifest, _ = load(finished.results / "manifest")
    images = [sample.id for sample in manifest.split("train")][:3]
    hand, run = finished.root / "hand", f"results/{RUN}/hand"
    pngs = {path.stem: path for path in finished.results.rglob("masks/train/png/*/label/*.png")}
    for image in images:
        save_label_png(hand / f"{image}.png", read_label_png(pngs[image]))
    # The base of such a matrix makes the pseudo masks for all.
    finished.configure(matrix={"retrain": {"hand": {"retrain": {"corrected": "hand"}}}})
    weights = f"{run}/segmenter/weights.safetensors"
    try:
        assert finished.runs(weights) == {"corrected_masks": 1, "retrain": 1}
        taught = checkpoint_provenance(finished.root / weights)
        assert taught.supervision == "mixed"
        assert taught.learned == {"pseudo masks": 11, "corrected masks": 3}
        jobs = finished.would_run()
        assert not jobs.keys() & {"corrected_masks", "retrain", "masks", "cams", "ingest"}
        assert jobs.items() >= {"predict": 2, "score_segmenter": 1}.items()

        edited = hand / f"{images[0]}.png"
        labels = read_label_png(edited)
        edited.touch()
        assert "retrain" not in finished.would_run()  # the same mask
        labels[:4] = 1
        save_label_png(edited, labels)
        assert finished.would_run("--", weights) == {"corrected_masks": 1, "retrain": 1}
        finished.snakemake("--", f"{run}/scores/predictions.val.json")
        assert checkpoint_provenance(finished.root / weights).inputs != taught.inputs
        checked = finished.wsss("verify", run, "--config", "tiny.yaml", "--quick")
        output, _ = checked.communicate()
        assert "corrected_masks" not in output, output

        mask = Image.fromarray(np.zeros((3, 3), np.uint8))
        mask.save(edited)
        failed = finished.snakemake("--", weights, check=False)
        assert f"{images[0]}.png: the truth of '{images[0]}' is 3 x 3 pixels" in failed.stderr
    finally:
        shutil.rmtree(finished.root / run, ignore_errors=True)
        shutil.rmtree(hand)
        finished.configure()
