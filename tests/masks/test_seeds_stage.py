"""The seeds stage: from CAM shards, and hard seeds that were imported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.builders import clip_es_config
from tests.refine.cam_run import CamRun
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.config.model import Config
from wsss.data.images.label_png import read_label_png, save_label_png
from wsss.data.manifest import Sample, write_manifest
from wsss.data.manifest_folder import MANIFEST
from wsss.labels.ignore import IGNORED
from wsss.masks.seeds_stage import run as make_seeds


@pytest.fixture
def run(tmp_path: Path) -> CamRun:
    tags: list[tuple[int, ...]] = [(0,), (2, 1), ()]
    samples = [
        Sample(f"image{n}", "train", Path(f"{n}.jpg"), 20, 16, f"{n:064x}", of)
        for n, of in enumerate(tags)
    ]
    cam_run = CamRun(tmp_path, samples)
    cam_run.write_manifest()
    return cam_run


def _seeds(run: CamRun, config: Config, name: str = "seeds") -> Path:
    cams = run.write_cams("all", [run.cam(sample) for sample in run.samples])
    out = run.folder / f"{name}.h5"
    make_seeds(
        run.manifest_dir, "train", cams, out, run.folder / name, **STAGES["seeds"].arguments(config)
    )
    return out


def test_seeds_follow_the_rule(run: CamRun) -> None:
    config = clip_es_config({"seeds": {"values": [0.3, 0.7]}, "compute": {"workers": 1}})
    with Shard(_seeds(run, config), kind="seeds") as shard:
        for sample in run.samples:
            item = shard.read(sample.id)
            allowed = {0, IGNORED, *(tag + 1 for tag in sample.tags)}
            assert set(np.unique(item.arrays["train"])) <= allowed
            assert IGNORED not in item.arrays["label"]
            assert item.attrs["classes"] == list(sample.tags)
            png = run.folder / "seeds/train" / f"{sample.id}.png"
            np.testing.assert_array_equal(read_label_png(png), item.arrays["train"])
        tagged, bare = shard.read("image1"), shard.read("image2")
    assert 0 < (tagged.arrays["train"] == IGNORED).mean() < 1
    assert (bare.arrays["train"] == IGNORED).all()


def test_seeds_are_reused_for_the_same_rule(run: CamRun, caplog: pytest.LogCaptureFixture) -> None:
    config = clip_es_config({"compute": {"workers": 1}})
    caplog.set_level("INFO")
    _seeds(run, config)
    _seeds(run, config)
    assert "3 images: 3 reused, 0 computed" in caplog.text
    _seeds(run, clip_es_config({"seeds": {"values": [0.5]}, "compute": {"workers": 1}}))
    assert caplog.text.count("3 images: 0 reused, 3 computed") == 2


def test_hard_seeds_are_used_unchanged(run: CamRun) -> None:
    folder = run.folder / "hard"
    folder.mkdir()
    random = np.random.default_rng(0)
    drawn = {}
    for sample in run.samples:
        drawn[sample.id] = random.choice(np.array([0, 1, 2, 3, 255], np.uint8), (16, 20))
        save_label_png(folder / f"{sample.id}.png", drawn[sample.id])
    external = {"path": str(folder), "layout": "png"}
    config = clip_es_config({"cams": {"source": "external", "external": external}})
    with Shard(_seeds(run, config), kind="seeds") as shard:
        for sample in run.samples:
            allowed = np.isin(drawn[sample.id], [0, *(tag + 1 for tag in sample.tags)])
            expected = np.where(allowed, drawn[sample.id], IGNORED)
            np.testing.assert_array_equal(shard.read(sample.id).arrays["train"], expected)


def test_cams_of_another_split_are_refused(run: CamRun) -> None:
    cams = run.write_cams("all", [run.cam(sample) for sample in run.samples])
    held_out = replace(run.samples[0], id="other", split="val")
    write_manifest(run.manifest_dir / MANIFEST, [*run.samples, held_out], run.names)
    out, arguments = run.folder / "s.h5", STAGES["seeds"].arguments(clip_es_config({}))
    with pytest.raises(ArtifactError, match="which the manifest's split does not list"):
        make_seeds(run.manifest_dir, "val", cams, out, run.folder / "png", **arguments)
