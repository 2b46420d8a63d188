"""Killing a stage at any moment leaves nothing that a later run accepts."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.shard import Shard

from .conftest import CONFIG, RUN, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


_STAGE = """
import time
from wsss.cli.guard import exit_with_parent
exit_with_parent()
print(1, flush=True)
time.sleep(60)
"""
_ENGINE = f"""
import os, subprocess, sys
os.environ["WSSS_ENGINE_PID"] = str(os.getpid())
stage = subprocess.Popen([sys.executable, "-c", {_STAGE!r}], stdout=subprocess.PIPE)
stage.stdout.readline()
print(stage.pid, flush=True)
stage.wait()
"""


def _masks_command(project: Project, out: Path) -> list[str]:
    results = project.root / "results" / RUN
    return [
        *(
            "masks",
            str(results / "scores_grid/train/1-of-2.h5"),
            "--manifest",
            str(results / "manifest"),
        ),
        *(
            "--out",
            str(out / "m.h5"),
            "--png",
            str(out / "png"),
            "--config",
            "config.yaml",
            "--config",
            "tiny.yaml",
        ),
    ]


def test_kill_at_random_moments(finished: Project, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    start = time.monotonic()
    assert finished.wsss(*_masks_command(finished, whole)).wait() == 0
    seconds = time.monotonic() - start
    with Shard(whole / "m.h5", kind="masks") as shard:
        expected = shard.content

    moments = random.Random(0)
    out = tmp_path / "killed"
    for _ in range(6):
        process = finished.wsss(*_masks_command(finished, out))
        time.sleep(seconds * moments.uniform(0.3, 1.0))
        process.kill()
        process.wait()
        if (out / "m.h5").exists():  # whole or not at all
            with Shard(out / "m.h5", kind="masks") as shard:
                assert shard.content == expected
                assert len(list(shard)) == len(shard)
            (out / "m.h5").unlink()
    assert finished.wsss(*_masks_command(finished, out)).wait() == 0
    with Shard(out / "m.h5", kind="masks") as shard:
        assert shard.content == expected
    assert not [path for path in out.iterdir() if ".tmp-" in path.name]


def test_a_killed_refiner_ends_in_the_same_weights(finished: Project, tmp_path: Path) -> None:
    """`kill -9` in the middle of `wsss refine-train`, then the same command again."""
    longer = CONFIG["refine"] | {  # type: ignore[operator]
        "train": {"iterations": 60, "batch": 2, "warmup": 1, "checkpoint_every": 5}
    }
    (finished.root / "longer.yaml").write_text(json.dumps(CONFIG | {"refine": longer}))

    def command(out: Path) -> list[str]:
        shards = [f"results/{RUN}/cams/train/{n}-of-2.h5" for n in (1, 2)]
        options = {
            "--manifest": f"results/{RUN}/manifest", "--out": out / "checkpoint.safetensors",
            "--log": out / "loss.csv", "--work": out / "work",
        }  # fmt: skip
        configs = ("--config", "config.yaml", "--config", "longer.yaml")
        return ["refine-train", *shards, *(str(x) for o in options.items() for x in o), *configs]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finished.wsss(*command(whole)).wait() == 0
    process = finished.wsss(*command(killed))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(killed.glob("work/state.safetensors")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "checkpoint.safetensors").exists(), "it was over before it was killed"
    again = finished.wsss(*command(killed))
    said, _ = again.communicate()
    assert again.returncode == 0
    assert "going on after step" in said
    found, expected = (load_checkpoint(p / "checkpoint.safetensors")[0] for p in (killed, whole))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (killed / "loss.csv").read_text() == (whole / "loss.csv").read_text()


def test_killed_engine_takes_its_stages_along(finished: Project, tmp_path: Path) -> None:
    engine = subprocess.Popen(
        [sys.executable, "-c", _ENGINE], cwd=finished.root, text=True, stdout=subprocess.PIPE
    )
    assert engine.stdout is not None
    stage = int(engine.stdout.readline())
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _running(stage):
        time.sleep(0.1)
    assert not _running(stage), "the stage outlived the engine that started it"


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")


def test_training_opens_no_pixel_label(finished: Project) -> None:
    """Everything up to the predictions runs with the ground truth out of reach."""
    truth = finished.root / "results/tiny-data/SegmentationClass"
    aside = truth.with_name("aside")
    targets = [
        f"results/{RUN}/{what}/val/{n}-of-2.h5"
        for what in ("predictions", "refiner_predictions")
        for n in (1, 2)
    ]
    truth.rename(aside)
    try:
        done = finished.snakemake("--forcerun", "cams", "retrain", "--", *targets)
        assert done.returncode == 0
        failed = finished.wsss(
            *("score", "masks", f"results/{RUN}/masks/val/1-of-2.h5", "--split", "val"),
            *("--manifest", f"results/{RUN}/manifest", "--out", "never.json"),
            *("--config", "config.yaml", "--config", "tiny.yaml"),
        )
        assert failed.wait() == 1
        assert failed.stdout is not None
        assert "SegmentationClass" in failed.stdout.read()
    finally:
        aside.rename(truth)
    finished.snakemake()
