"""The sweep over kinds of affinity: what does not differ is made once, and a kind its own maps."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from wsss.artifacts.shard import Shard
from wsss.config.base import overlay

from .conftest import CONFIG, ROOT, RUN, Project, copy_project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TABLE = f"results/{RUN}/tables/sweep.csv"
SMALL = {"shards": 1, "data": CONFIG["data"] | {"demo_images": [4, 2]}}  # type: ignore[operator]


def _configure(project: Project, **changes: Any) -> None:
    """The preset, reduced, on four scenes."""
    preset = yaml.safe_load((ROOT / "workflow/presets/affinity.yaml").read_text())
    project.configure(**overlay(overlay(CONFIG, preset), {**SMALL, "name": RUN, **changes}))


def test_the_preset_computes_no_maps_twice(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    _configure(project)
    planned = project.would_run(TABLE)
    # Blocks x power of attention and five joined kinds; power alone of the other five.
    assert planned["cams"] == 2 * (6 * 6 + 5 * 2)  # of two splits
    assert planned["score_affinity"] == planned["cams"]
    assert planned["sweep_table"] == planned["ingest"] == 1
    assert not {"refine_train", "retrain"} & set(planned)


def test_each_kind_has_maps_and_a_row(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    kinds: dict[str, dict[str, Any]] = {
        "attention": {},
        "same": {"tau": 0.3},  # which attention does not read
        "joined": {"kind": "joined"},
        "feature": {"kind": "feature"},
    }
    runs = {name: {"cams": {"affinity": kind}} for name, kind in kinds.items()}
    _configure(project, sweep={}, cams={"splits": ["train"]})
    _set_runs(project, runs)
    done = project.runs(TABLE)
    assert done["cams"] == done["score_affinity"] == 3
    with (project.root / TABLE).open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["run"] for row in rows} >= set(kinds)
    arrays = {}
    # The configuration itself has attention, so its folder holds those maps.
    for name, run in {
        "attention": RUN,
        "joined": f"{RUN}/joined",
        "feature": f"{RUN}/feature",
    }.items():
        with Shard(project.root / f"results/{run}/cams/train/1-of-1.h5") as shard:
            arrays[name] = {item.id: item.arrays["cam_affinity"] for item in shard}
    for name in ("joined", "feature"):
        assert any((arrays[name][i] != arrays["attention"][i]).any() for i in arrays[name])
    # A temperature that nothing reads reruns nothing; that of a joined affinity does.
    _set_runs(project, runs | {"attention": {"cams": {"affinity": {"sharpness": 7.0}}}})
    assert not project.would_run(TABLE)
    _set_runs(project, runs | {"joined": {"cams": {"affinity": {"kind": "joined", "tau": 0.3}}}})
    assert project.would_run(TABLE)["cams"] == 1


def _set_runs(project: Project, runs: dict[str, Any]) -> None:
    """Replace the runs of the preset, which `overlay` would only add to."""
    file = project.root / "tiny.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"runs": runs, "sweep": {}}))
