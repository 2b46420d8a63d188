"""Rehearsals: what they change, what they conclude, and two of them through the command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rehearse import project
from benchmarks.rehearse.__main__ import main
from benchmarks.rehearse.full_run import estimate, full_images
from benchmarks.rehearse.jobs import Job, Loop
from benchmarks.rehearse.reductions import PHASES
from benchmarks.rehearse.weights import write_backbone
from benchmarks.timing import peak_memory
from wsss.cli.weights_list import weights_of
from wsss.config.load import from_mapping, load_config
from wsss.config.paths import SHARED_VARIABLE, expand_path
from wsss.config.safe_yaml import read_yaml
from wsss.refine.registry import METHODS
from wsss.score.papers.runs import table_runs

ROOT = project.ROOT
SHARED = expand_path("${WSSS_SHARED}").resolve()
REDUCED = {
    "shards", "compute.workers", "compute.device", "data.demo_images",
    "clip.model", "clip.pretrained", "dino.pretrained", "retrain.init",
    *(f"{section}.{key}" for section in ("refine.train", "retrain")
      for key in ("iterations", "batch", "warmup", "threads")),
    *(f"refine.{method}.{option}" for method, options in PHASES.items() for option in options),
}  # fmt: skip


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    project.prepare(folder, (3, 2))
    return folder


def leaves(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    old, new = dict(leaves(before)), dict(leaves(after))
    assert set(old) <= set(new)
    return {key for key, value in new.items() if key not in old or old[key] != value}


def test_every_preset_and_table_is_a_target() -> None:
    presets = {path.stem for path in (ROOT / "workflow/presets").iterdir()}
    tables = {f"table_{path.stem}" for path in (ROOT / "workflow/tables").iterdir()}
    assert set(project.targets()) == presets | tables


def test_presets_change_in_nothing_but_the_reductions(reduced: Path) -> None:
    for path in (ROOT / "workflow/presets").iterdir():
        before, after = read_yaml(path), read_yaml(reduced / "workflow/presets" / path.name)
        for name, run in before.pop("runs", {}).items():
            assert changed(run, after["runs"][name]) <= REDUCED, path.stem
        after.pop("runs", None)
        assert changed(before, after) <= REDUCED, path.stem


@pytest.mark.slow
def test_no_training_of_a_preset_or_table_stays_long(reduced: Path) -> None:
    runs = {}
    for path in (reduced / "workflow/tables").iterdir():
        runs |= {f"{path.stem} {k}": from_mapping(run) for k, run in table_runs(path).items()}
    for target in ("coco14-weakclip-segmenters", "excel-components", "voc12-excel"):
        runs |= project.configs_of(target, reduced)
    assert len(runs) > 40
    for name, config in runs.items():
        for training in (config.refine.train, config.retrain):
            assert (training.iterations, training.warmup, training.batch) == (2, 0, 2), name
        assert config.shards == 1, name
        for option in PHASES.get(config.refine.method, ()):
            assert getattr(config.refine.options, option) in (1, 2, None), name
    assert runs["weclip_rfm decoder-alone"].refine.weclip.rfm_start == 2  # never, as in the table
    assert runs["weclip_rfm decoder-rfm"].refine.weclip.rfm_start == 1
    assert set(PHASES) <= set(METHODS)


def test_models_with_a_tokenizer_of_the_hub_get_another_one(reduced: Path) -> None:
    preset = read_yaml(reduced / "workflow/presets/voc12-encoders.yaml")
    models = {name: run["clip"]["model"] for name, run in preset["runs"].items()}
    assert models["siglip-b16"] == "data/weights/ViT-B-16-SigLIP.json"
    assert models["eva02-b16"] == "EVA02-B-16"


def test_a_preset_goes_on_top_of_what_its_head_names() -> None:
    folder = "workflow/presets"
    assert project.preset_files("voc12-excel") == [f"{folder}/voc12-excel.yaml"]
    assert project.preset_files("voc12-weakclip-authors") == [
        f"{folder}/voc12-weakclip.yaml", f"{folder}/voc12-weakclip-authors.yaml",
    ]  # fmt: skip
    assert project.preset_files("affinity") == [
        f"{folder}/voc-subset.yaml", f"{folder}/affinity.yaml",
    ]  # fmt: skip


def test_a_preset_runs_what_its_head_names() -> None:
    assert project.preset_targets("affinity") == ["results/affinity/tables/sweep.md"]
    assert project.preset_targets("voc12-excel") == []


@pytest.mark.parametrize(
    "target", [name for name in project.targets() if name.startswith(("demo-", "table_demo"))]
)
def test_what_runs_on_drawn_scenes_downloads_nothing(target: str) -> None:
    for name, config in project.configs_of(target, ROOT).items():
        for weights in weights_of([config], ROOT / "results/cache"):
            assert weights.path is not None, f"{name}: {weights}"


@pytest.mark.parametrize(
    ("preset", "images"),
    [
        ("voc12-weclip", (10_582, 1449)), ("voc12-clip-es", (1464,)),
        ("coco14-weclip", (82_081, 40_137)), ("demo-excel", (240, 80)),
    ],
)  # fmt: skip
def test_counts_of_full_runs(preset: str, images: tuple[int, ...]) -> None:
    data = load_config(ROOT / "config.yaml", ROOT / f"workflow/presets/{preset}.yaml").data
    assert tuple(full_images(data, s, SHARED) for s in ("train", "val")[: len(images)]) == images


def test_hours_and_memory_of_a_full_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    full = from_mapping(
        {
            "shards": 4,
            "data": {"root": str(tmp_path), "demo_images": [100, 50]},
            "refine": {"method": "weclip", "train": {"iterations": 1000, "batch": 8}},
        }
    )
    short = from_mapping(
        {
            "data": {"root": str(tmp_path), "demo_images": [3, 1]},
            "refine": {"method": "weclip", "train": {"iterations": 2, "batch": 2, "warmup": 0}},
        }
    )
    for folder in ("JPEGImages", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for name, ids in {"train": "abc", "val": "d"}.items():
        (tmp_path / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(ids))
    (tmp_path / "tags.csv").write_text("image,tags\n")

    loop = Loop("CAMs", 3, seconds=6.0, memory=10)
    job = Job("results/demo/logs/cams/train.1-of-1.log", 20.0, 16.0, peak=30, loops=(loop,))
    cams = estimate("demo", job, full, short, SHARED)
    assert (cams.stage, cams.startup, cams.per_item, cams.items) == ("cams train", 10.0, 2.0, 100)
    assert cams.hours == pytest.approx((4 * 10 + 100 * 2) / 3600)
    assert cams.memory == 30

    steps = (Loop("Labels", 3, 9.0, 50), Loop("weclip", 2, 8.0, memory=100))
    job = Job("results/demo/logs/refine_train.log", 20.0, 18.0, peak=150, loops=steps)
    training = estimate("demo", job, full, short, SHARED)
    assert (training.startup, training.per_item, training.items) == (1.0, 2.0, 8000)
    assert training.hours == pytest.approx((1 + 8000 * 2 + 100 * 3) / 3600)
    assert training.memory == 100 + 50 * 8 // 2

    score = Job("results/demo/logs/score/cam.val.log", 2.0, 1.0, 5, (Loop("CAMs", 1, 0.5, 1),))
    assert estimate("demo", score, full, short, SHARED).items == 50


def test_no_file_stands_for_the_tower_of_the_runs_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(ROOT / "config.yaml")
    assert (config.retrain.enabled, config.retrain.init) == (True, "clip")
    monkeypatch.chdir(tmp_path)
    write_backbone(config)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def rehearse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str]]:
    """The command in this process, which starts the real engine: what it ends with and prints."""

    def command(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["rehearse", "--out", str(tmp_path), *arguments])
        monkeypatch.setenv(SHARED_VARIABLE, str(SHARED))
        code: object = None
        try:
            main()
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out

    monkeypatch.chdir(ROOT)
    return command


@pytest.mark.slow
@pytest.mark.workflow
@pytest.mark.skipif(not (SHARED / "data/coco-subset").is_dir(), reason="no photographs")
def test_a_preset_ends_and_a_failing_one_stops_no_other(
    rehearse: Callable[..., tuple[object, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to its table: each job imports torch, and pictures and pages are as of other runs."""
    preset = "coco14-clip-es"  # whose masks are drawn first
    table = f"results/{preset}/tables/table.md"
    monkeypatch.setattr("benchmarks.rehearse.__main__.preset_targets", lambda _: [table])
    code, printed = rehearse(preset, "--photos", "1", "1", "--cores", "2")
    assert code is None, printed
    record = json.loads((tmp_path / f"rehearsals/{preset}.json").read_text())
    stages = {stage["stage"]: stage for stage in record["stages"]}
    assert {"coco_masks_0 train", "cams train", "masks train", "table"} <= set(stages)
    cams = stages["cams train"]
    assert cams["items"] == 82_081
    assert cams["per_item"] > 0.05  # ViT-B/16 at the photograph's size
    assert cams["hours"] > cams["items"] * cams["per_item"] / 3600
    assert 2**30 < cams["peak"] < 2**33
    assert f"{preset}: finished in" in printed
    assert (tmp_path / table).is_file()

    code, printed = rehearse("voc-subset", preset, "--photos", "999", "1")
    assert code == "failed: voc-subset"
    assert "voc-subset: failed before it ran: fewer than 999 photographs" in printed
    assert f"{preset}: finished before" in printed


def test_memory_of_a_job_that_has_just_ended_is_no_failure() -> None:
    """Until its parent asks for it, an ended process has a status, but no memory."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    assert peak_memory(child.pid) > 0
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError, match=f"process {child.pid} has ended"):
        peak_memory(child.pid)
    child.wait()
