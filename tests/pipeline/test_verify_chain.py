"""Artifacts compared with their configuration and with what they are made from."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from wsss.artifacts.stage import STAGES
from wsss.cams.stage import run as make_cams
from wsss.clip.tags.stage import run as change_tags
from wsss.data.images.label_png import read_label_png, save_label_png
from wsss.data.ingest.stage import ingest
from wsss.data.manifest_folder import GIVEN, MANIFEST
from wsss.demo.dataset import generate
from wsss.masks.stage import run as make_masks
from wsss.pipeline.runs import Runs
from wsss.pipeline.verify.chain import Chain
from wsss.pipeline.verify.expected import Expected
from wsss.pipeline.verify.findings import Findings
from wsss.score.truth.corrected import run as take_corrected


def _runs(**noise: Any) -> Runs:
    data = {"root": "data", "demo_images": [4, 2]}
    return Runs({"name": "a", "data": data, "tag_noise": noise})


def _findings(runs: Runs, training: str = "") -> dict[Path, str]:
    """Of the manifest, or of a training and what it learns from."""
    findings = Findings()
    chain = Chain(runs, Expected(runs), findings, quick=False)
    chain.training(training, "a") if training else chain.manifest("a")
    return {finding.path: f"{finding.status}: {finding.reason}" for finding in findings}


def test_other_tags_are_held_against_configuration_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate(Path("data"), train=4, val=2)
    runs = _runs(dropped=0.5)
    config, given, noisy = (
        runs["a"].config,
        Path("results/a/manifest"),
        Path("results/a/noisy_tags"),
    )
    ingest(given, **STAGES["ingest"].arguments(config))
    assert set(_findings(runs)) == {noisy / MANIFEST}  # is not there yet
    change_tags(given, noisy, Path("cache"), **STAGES["tag_noise"].arguments(config))
    assert not _findings(runs)
    assert "0.5" in _findings(_runs(dropped=0.6))[noisy / MANIFEST]
    assert not _findings(_runs())  # uses the given tags
    (noisy / GIVEN).write_text((noisy / GIVEN).read_text().replace("train", "val", 1))
    assert "given.csv is not what tag_noise wrote" in _findings(runs)[noisy / MANIFEST]


def test_files_of_others_are_held_against_what_was_made_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported CAMs, mask proposals and corrected masks, of one image each."""
    monkeypatch.chdir(tmp_path)
    generate(Path("data"), train=2, val=1)
    runs = Runs({
        "name": "a",
        "shards": 1,
        "data": {"root": "data", "demo_images": [2, 1]},
        "cams": {
            "source": "external",
            "external": {"path": "seeds", "layout": "png"},
            "affinity": {"enabled": False},
            "splits": ["train"],
        },
        "refine": {"method": "none"},
        "masks": {"refine": "sam", "proposals": {"path": "sam"}, "crf": {"enabled": False}},
        "retrain": {"corrected": "corrected"},
    })  # fmt: skip
    config, results = runs["a"].config, Path("results/a")
    for folder in ("seeds", "corrected"):
        shutil.copytree("data/SegmentationClass", folder)
    Path("sam").mkdir()
    for png in Path("seeds").glob("train*.png"):
        encoded: Any = rle.encode(np.asfortranarray(read_label_png(png) > 0, np.uint8))
        encoded["counts"] = encoded["counts"].decode()
        Path("sam", f"{png.stem}.json").write_text(json.dumps([{"segmentation": encoded}]))
    manifest, part = results / "manifest", (1, 1)
    cams, masks, corrected = (
        results / name
        for name in ("cams/train/1-of-1.h5", "masks/train/1-of-1.h5", "corrected_masks/train.h5")
    )
    ingest(manifest, **STAGES["ingest"].arguments(config))
    make_cams(manifest, "train", part, cams, Path("cache"), **STAGES["cams"].arguments(config))
    png = masks.parent / "png" / masks.stem
    make_masks(manifest, cams, masks, png, **STAGES["masks"].arguments(config))
    take_corrected(manifest, corrected, **STAGES["corrected_masks"].arguments(config))
    assert {path.suffix for path in _findings(runs, "segmenter")} == {".safetensors", ".csv"}
    for folder in ("seeds", "corrected"):
        path = Path(folder, "train_0000.png")
        labels = read_label_png(path)
        labels[0, 0] ^= 1
        save_label_png(path, labels)
    proposals = Path("sam/train_0001.json")
    proposals.write_text(proposals.read_text() + " ")
    findings = _findings(runs, "segmenter")
    assert "stale: made with other input 'external'" in findings[cams]
    assert "made with other input 'proposals'" in findings[masks]
    assert "stale: made with other input 'truth'" in findings[corrected]
