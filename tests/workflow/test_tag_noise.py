"""Runs with other tags, and labels over a training's steps, as the engine plans them: dry runs."""

from pathlib import Path

import pytest

from .conftest import RUN, copy_project

pytestmark = pytest.mark.workflow


def test_runs_with_other_tags_start_from_one_manifest(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    runs = {"given": {}, "noisy": {"tag_noise": {"dropped": 0.5}}}
    project.configure(runs=runs, retrain={"enabled": False})
    planned = project.would_run("all", f"results/{RUN}/noisy/pictures/label_quality.png")
    once = ("ingest", "tag_noise", "refine_labels", "sweep_table", "noise_chart")
    assert {rule: planned[rule] for rule in once} == dict.fromkeys(once, 1)
    assert planned["cams"] == 8  # of each run: two shards of two splits
    assert planned["score_blob"] == 4  # which is made from the tags
