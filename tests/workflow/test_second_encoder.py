"""A refiner on two frozen encoders, from training to the table; and what reads the second one."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import wsss
from tests.dino.models import TINY
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import DEMO
from wsss.dino.load import load_dino
from wsss.pipeline.stages import (
    STAGES,
    entry_modules,
    runs_chosen_code,
    stage_modules,
    stage_state,
)
from wsss.refine.registry import METHODS

from .conftest import CONFIG, RUN, Project, copy_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TABLE = f"results/{RUN}/tables/table.md"
READERS = {"refine_train", "refine_apply", "refine_predict"}


def plus(**changes: Any) -> dict[str, Any]:
    """WeCLIP+ on few scenes, up to the masks."""
    train = CONFIG["refine"]["train"]
    options = {
        "shards": 1,
        "data": {"root": "results/tiny-data", "demo_images": [5, 2]},
        "clip": DEMO["clip"],
        "dino": {"model": "sizes.json", "pretrained": "dino.safetensors"},
        "refine": {
            "method": "weclip_plus",
            "train": train | {"snapshots_every": 2},
            "weclip_plus": {"width": 16, "self_training_start": 2},
        },
        "infer": {"scales": [1.0, 1.5], "crf": False},
        "masks": {"crf": {"enabled": False}},
        "retrain": {"enabled": False},
    }
    return overlay(options, changes)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """After a run of WeCLIP+ with a random DINOv2 in a file."""
    project = copy_project(tmp_path_factory.mktemp("plus"))
    shutil.copy(TINY, project.root / "sizes.json")
    model, _ = load_dino(str(TINY), "random")
    save_file(model.state_dict(), project.root / "dino.safetensors")
    project.configure(**plus())
    project.snakemake("--", TABLE, f"results/{RUN}/tables/efficiency.md")
    return project


def test_the_table_has_scores_and_predictions(project: Project) -> None:
    with (project.results / "tables/table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    names = {row["method"] for row in rows}
    assert "weclip_plus" in names, names
    products = {row["product"] for row in rows if row["method"] == "weclip_plus"}
    assert {"refiner_scores", "masks", "refiner_prediction"} <= products
    cost = json.loads((project.results / "refine/efficiency.json").read_text())
    assert cost["parameters"] > cost["trained_parameters"]


def test_the_checkpoint_holds_no_frozen_weight_and_predicts_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = project.results / "refine/checkpoint.safetensors"
    tensors, provenance = load_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in tensors} == {"clip", "dino", "decoder"}
    assert set(provenance.weights) == {"clip", "dino"}
    monkeypatch.chdir(project.root)  # where its configuration names the files from
    refiner = wsss.load_refiner(checkpoint, device="cpu")
    photo = np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)
    assert refiner.probabilities(photo).shape == (11, 90, 70)


def test_a_second_run_has_nothing_to_do(project: Project) -> None:
    assert not project.would_run(TABLE)


def test_other_weights_of_dino_rerun_what_reads_them(project: Project) -> None:
    path = project.root / "dino.safetensors"
    content, times = path.read_bytes(), path.stat()
    tensors = load_file(path)
    save_file(tensors | {"norm.bias": tensors["norm.bias"] + 1}, path)
    rules = set(project.would_run(TABLE))
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert rules >= READERS
    assert not rules & {"cams", "ingest", "seeds"}


def test_the_section_is_read_where_it_is_used(project: Project) -> None:
    project.configure(**plus(dino={"precision": "bfloat16"}))
    rules = set(project.would_run(TABLE))
    project.configure(**plus())
    assert rules >= READERS
    assert not rules & {"cams", "ingest"}


@pytest.mark.parametrize(("method", "reads"), [("weclip", False), ("weclip_plus", True)])
def test_other_methods_do_not_depend_on_it(method: str, reads: bool) -> None:
    first, second = (
        from_mapping({"refine": {"method": method}, "dino": {"precision": precision}})
        for precision in ("float32", "bfloat16")
    )
    for stage in (*READERS, "refine_labels", "score_masks"):
        assert (stage_state(stage, first) != stage_state(stage, second)) == reads, stage
    modules = stage_modules("refine_train", first)
    assert any(name.startswith("wsss.dino") for name in modules) == reads


def test_each_run_depends_on_the_code_of_its_own_encoders(project: Project) -> None:
    runs = {"attention": {}, "dino": {"cams": {"affinity": {"kind": "dino"}}}}
    project.configure(**plus(runs=runs))
    targets = [f"results/{RUN}/{folder}cams/train/1-of-1.h5" for folder in ("", "dino/")]
    encoder = project.root / "wsss/dino/encoder.py"
    source = encoder.read_text()
    try:
        assert project.runs(*targets)["cams"] == 1  # the other one is that of WeCLIP+
        encoder.write_text(source + "\nEDITED = True\n")
        assert project.would_run(*targets) == {"cams": 1}
    finally:
        encoder.write_text(source)
        project.configure(**plus())


def test_the_configuration_chooses_the_code_of_no_other_stage() -> None:
    configs = [
        from_mapping({"refine": {"method": method}, "cams": {"affinity": {"kind": kind}}})
        for method in (*METHODS, "none")
        for kind in ("attention", "dino")
    ]
    for stage in STAGES:
        modules = {entry_modules(stage, config) for config in configs}
        assert len(modules) == 1 or runs_chosen_code(stage), stage


def test_labels_of_the_training_are_scored(project: Project) -> None:
    target = f"results/{RUN}/tables/label_quality.csv"
    project.snakemake("--", target)
    with (project.root / target).open() as stream:
        steps = [int(row["step"]) for row in csv.DictReader(stream)]
    assert steps == [0, 2, 4]
    assert not project.would_run(target)


def test_a_checkpoint_of_another_dino_is_refused(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "scores.h5"
    manifest = project.results / "manifest"
    changed = project.root / "other.yaml"
    sizes = project.root / "heads.json"
    sizes.write_text(json.dumps(json.loads(TINY.read_text()) | {"num_heads": 4}))
    changed.write_text(json.dumps(CONFIG | plus(dino={"model": "heads.json"})))
    with project.wsss(
        "refine-apply", str(project.results / "cams/train/1-of-1.h5"), "--manifest", str(manifest),
        "--split", "train", "--checkpoint", str(project.results / "refine/checkpoint.safetensors"),
        "--out", str(out), "--config", str(changed),
    ) as process:  # fmt: skip
        text, _ = process.communicate()
    assert process.returncode == 1, text
    assert "was trained with DINO weights of sha256" in text
    assert not out.exists()
