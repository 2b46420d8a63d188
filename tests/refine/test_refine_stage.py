"""The refine stage with the identity refiner: what it writes, reuses and refuses."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.refine.cam_run import CamRun
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.checksum import write_checksum
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.config.model import Config
from wsss.refine import stage
from wsss.refine.inputs import CamSet


@pytest.fixture
def shard(run: CamRun) -> Path:
    return run.write_cams("1-of-1", [run.cam(sample) for sample in run.samples[:5]])


@pytest.fixture
def checkpoint(run: CamRun, shard: Path) -> Path:
    path = run.folder / "checkpoint.safetensors"
    train(run, run.config, shard, path)
    return path


def train(run: CamRun, config: Config, shard: Path, out: Path) -> None:
    log, work, cache = (run.folder / name for name in ("loss.csv", "work", "cache"))
    stage.train(config, run.manifest_dir, [shard], out, log, work, cache)


def apply(run: CamRun, shard: Path, checkpoint: Path, split: str = "train") -> Path:
    out = run.folder / "scores" / shard.name
    cache = run.folder / "cache"
    stage.apply(run.config, run.manifest_dir, split, shard, checkpoint, out, cache)
    return out


def test_checkpoint_of_the_identity_is_empty(run: CamRun, shard: Path, checkpoint: Path) -> None:
    tensors, made = load_checkpoint(checkpoint)
    assert tensors == {}
    assert made.stage == "refine_train"
    assert made.config["refine"]["method"] == "none"
    assert (run.folder / "loss.csv").read_text() == "step,loss\n"
    assert made.weights == {"clip": "abc"}
    with Shard(shard) as cams:
        assert made.inputs == {"cams/1-of-1.h5": cams.content}


def test_scores_are_the_refined_cams(run: CamRun, shard: Path, checkpoint: Path) -> None:
    with Shard(apply(run, shard, checkpoint), kind="scores") as scores, Shard(shard) as cams:
        assert scores.ids == cams.ids
        assert scores.provenance.weights == {"clip": "abc"}
        for item, cam in zip(scores, cams, strict=True):
            assert set(item.arrays) == {"score"}
            assert item.arrays["score"].dtype == np.float16
            np.testing.assert_array_equal(item.arrays["score"], cam.arrays["cam_affinity"])
            assert item.attrs == {**cam.attrs, "split": "train"}


def test_without_affinity_scores_are_the_plain_cams(run: CamRun, checkpoint: Path) -> None:
    plain = run.write_cams("plain", [run.cam(s, affinity=False) for s in run.samples[:5]])
    with Shard(apply(run, plain, checkpoint)) as scores, Shard(plain) as cams:
        for item, cam in zip(scores, cams, strict=True):
            np.testing.assert_array_equal(item.arrays["score"], cam.arrays["cam"])


def test_content_does_not_depend_on_the_shards(run: CamRun, shard: Path, checkpoint: Path) -> None:
    parts = [
        run.write_cams(f"{part}-of-2", [run.cam(s) for s in run.samples[:5][part::2]])
        for part in (0, 1)
    ]
    found = {}
    for part in parts:
        with Shard(apply(run, part, checkpoint)) as scores:
            found |= {item.id: item for item in scores}
    with Shard(apply(run, shard, checkpoint)) as scores:
        for item in scores:
            np.testing.assert_array_equal(item.arrays["score"], found[item.id].arrays["score"])
            assert (item.attrs, item.key) == (found[item.id].attrs, found[item.id].key)


def test_unchanged_items_are_taken_over(
    run: CamRun, shard: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    apply(run, shard, checkpoint).unlink()
    new = [run.cam(sample) for sample in run.samples[:5]]
    new[2] = replace(new[2], key="made anew")
    apply(run, run.write_cams("1-of-1", new), checkpoint)
    assert [r.message for r in caplog.records if "images" in r.message] == [
        "5 images: 0 reused, 5 computed",
        "5 images: 4 reused, 1 computed",
    ]


def test_training_anew_to_the_same_end_keeps_the_scores(
    run: CamRun, shard: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    apply(run, shard, checkpoint)
    config = run.config.model_copy(update={"seed": 7})
    train(run, config, shard, checkpoint)
    caplog.set_level(logging.INFO)
    apply(run, shard, checkpoint)
    assert "5 images: 5 reused, 0 computed" in caplog.text


def test_the_split_decides_which_photo_an_id_means(run: CamRun, checkpoint: Path) -> None:
    held_out = run.write_cams("val", [run.cam(run.samples[5])])
    with Shard(apply(run, held_out, checkpoint, "val")) as scores:
        assert scores.attrs("image0")["split"] == "val"
        assert scores.attrs("image0")["size"] == [48, 64]
    with pytest.raises(ArtifactError, match="manifest says"):
        apply(run, held_out, checkpoint, "train")


def test_training_needs_the_cam_of_every_image(run: CamRun) -> None:
    part = run.write_cams("part", [run.cam(sample) for sample in run.samples[1:5]])
    with pytest.raises(ArtifactError, match=r"1 training images have no CAM, e\.g\. 'image0'"):
        train(run, run.config, part, run.folder / "c")
    assert not (run.folder / "c").exists()


def test_shards_that_do_not_fit_are_refused(run: CamRun, shard: Path, checkpoint: Path) -> None:
    stray = run.write_cams("stray", [replace(run.cam(run.samples[0]), id="elsewhere")])
    with pytest.raises(ArtifactError, match=r"stray.h5: holds 'elsewhere'"):
        apply(run, stray, checkpoint)
    with pytest.raises(ArtifactError, match="every shard once"):
        CamSet([shard, shard], run.samples[:5])
    other = run.write_cams("other", [run.cam(run.samples[0])], kind="masks")
    with pytest.raises(ArtifactError, match="expected 'cams'"):
        apply(run, other, checkpoint)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"cam": np.full((1, 4, 5), np.nan, np.float16)}, "NaN"),
        ({"cam": np.full((1, 4, 5), 1.5, np.float16)}, "expected 0 … 1"),
        ({"cam": np.zeros((2, 4, 5), np.float16)}, "shape"),
        ({"map": np.zeros((1, 4, 5), np.float16)}, "shape None"),
    ],
)
def test_damaged_cams_are_refused(
    run: CamRun, checkpoint: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    bad = run.write_cams("bad", [replace(run.cam(run.samples[0]), arrays=arrays)])
    with pytest.raises(ArtifactError, match=message):
        apply(run, bad, checkpoint)
    assert not (run.folder / "scores" / "bad.h5").exists()


def test_checkpoints_that_do_not_fit_are_refused(
    run: CamRun, shard: Path, checkpoint: Path
) -> None:
    with pytest.raises(ArtifactError, match="run refine-train first"):
        apply(run, shard, run.folder / "nowhere")
    changed = checkpoint.read_bytes().replace(
        b'\\"method\\":\\"none\\"', b'\\"method\\":\\"nine\\"'
    )
    checkpoint.write_bytes(changed)
    with pytest.raises(ArtifactError, match="does not match its digest; delete it and rerun"):
        apply(run, shard, checkpoint)
    checkpoint.write_bytes(
        re.sub(rb'"checksum":"\w{64}"', b'"checksum":"%s"' % (b"0" * 64), changed)
    )
    write_checksum(checkpoint)
    with pytest.raises(ArtifactError, match="refiner 'nine', the configuration says 'none'"):
        apply(run, shard, checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:50])
    with pytest.raises(ArtifactError, match="damaged or no safetensors file; delete it"):
        apply(run, shard, checkpoint)


def test_an_empty_shard(run: CamRun, checkpoint: Path) -> None:
    with Shard(apply(run, run.write_cams("empty", []), checkpoint), kind="scores") as scores:
        assert scores.ids == []


def test_applying_the_identity_needs_no_torch() -> None:
    program = (
        "import sys, wsss.refine.stage, wsss.refine.identity; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
