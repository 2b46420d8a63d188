"""The refine stage, whatever the method: what it writes, reuses, resumes and refuses."""

import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import write_shard
from tests.refine.chain import Chain
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.checksum import write_checksum
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.clip.load import load_clip
from wsss.compute.threads import fixed_threads
from wsss.config.paths import expand_path
from wsss.data.manifest_folder import load
from wsss.refine.load import from_checkpoint

TRAIN = {"iterations": 2, "warmup": 0, "batch": 2, "crop": 64}
CHAIN = {
    "refine": {"method": "weclip", "train": TRAIN, "weclip": {"width": 16}},
    "clip": {"long_side": 64},
}


def rewritten(shard: Path, out: Path, part: slice, key: str = "") -> Path:
    """Some images of a shard; with ``key`` the first is of another key."""
    with Shard(shard) as source:
        items = [source.read(image) for image in source.ids[part]]
        if key:
            items[0] = replace(items[0], key=key)
        return write_shard(out, "cams", items, source.provenance)


def test_checkpoint_and_provenance(chain: Chain, checkpoint: Path) -> None:
    _, provenance = load_checkpoint(checkpoint)
    assert provenance.stage == "refine_train"
    assert provenance.config["refine"]["method"] == "weclip"
    assert set(provenance.weights) == {"clip"}
    with Shard(chain.cams["train"]) as cams:
        assert provenance.inputs["cams/cams-train.h5"] == cams.content


@pytest.mark.slow
def test_content_does_not_depend_on_shards_or_threads_and_is_reused(
    chain: Chain, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config, whole = chain.config(), tmp_path / "whole.h5"
    chain.apply(config, checkpoint, whole)
    with Shard(whole, kind="scores") as scores:
        items = {item.id: item for item in scores}
        assert set(items[scores.ids[0]].attrs) == {"classes", "grid", "size", "split"}
    cams = chain.cams["train"]
    for part in (slice(0, 3), slice(3, None)):
        part_of_cams = rewritten(cams, tmp_path / "cams.h5", part)
        with fixed_threads(3):
            part_of_scores = chain.apply(config, checkpoint, tmp_path / "part.h5", part_of_cams)
        with Shard(part_of_scores) as scores:
            for item in scores:
                expected = items[item.id]
                assert (item.attrs, item.key) == (expected.attrs, expected.key)
                for name, array in item.arrays.items():
                    np.testing.assert_array_equal(array, expected.arrays[name])
    chain.apply(config, checkpoint, whole, rewritten(cams, tmp_path / "c.h5", slice(None), "new"))
    assert [r.message for r in caplog.records if "reused" in r.message] == [
        "7 images: 0 reused, 7 computed",
        "3 images: 0 reused, 3 computed",
        "4 images: 0 reused, 4 computed",
        "7 images: 6 reused, 1 computed",
    ]


def test_training_again_to_the_same_end_keeps_the_scores(
    chain: Chain, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain.apply(chain.config(), checkpoint, tmp_path / "scores.h5")
    again = chain.train(chain.config(compute={"workers": 1}), tmp_path)
    caplog.set_level(logging.INFO)
    chain.apply(chain.config(), again, tmp_path / "scores.h5")
    assert "7 images: 7 reused, 0 computed" in caplog.text


def test_training_needs_the_cam_of_every_image(chain: Chain, tmp_path: Path) -> None:
    cams = rewritten(chain.cams["train"], tmp_path / "cams.h5", slice(1, None))
    with pytest.raises(ArtifactError, match=r"1 training images have no CAM, e\.g\."):
        chain.train(chain.config(), tmp_path / "out", cams)
    assert not list(tmp_path.glob("out/*.safetensors"))


def test_checkpoints_that_do_not_fit_are_refused(
    chain: Chain, checkpoint: Path, tmp_path: Path
) -> None:
    config, out = chain.config(), tmp_path / "scores.h5"
    with pytest.raises(ArtifactError, match="run the stage that makes it first"):
        chain.apply(config, tmp_path / "nowhere", out)
    bad = Path(shutil.copy(checkpoint, tmp_path / "bad.safetensors"))
    changed = bad.read_bytes().replace(b'\\"method\\":\\"weclip\\"', b'\\"method\\":\\"weclop\\"')
    bad.write_bytes(changed)
    with pytest.raises(ArtifactError, match="not match its digest; if a stage wrote it, delete"):
        chain.apply(config, bad, out)
    blank = re.sub(rb'"checksum":"\w{64}"', b'"checksum":"%s"' % (b"0" * 64), changed)
    bad.write_bytes(blank)
    write_checksum(bad)
    with pytest.raises(ArtifactError, match="refiner 'weclop', the configuration says 'weclip'"):
        chain.apply(config, bad, out)
    bad.write_bytes(checkpoint.read_bytes()[:50])
    with pytest.raises(ArtifactError, match="no safetensors file; if a stage wrote it, delete it"):
        chain.apply(config, bad, out)


def test_an_empty_shard(chain: Chain, checkpoint: Path, tmp_path: Path) -> None:
    cams = rewritten(chain.cams["train"], tmp_path / "cams.h5", slice(0))
    with Shard(chain.apply(chain.config(), checkpoint, tmp_path / "s.h5", cams)) as scores:
        assert scores.ids == []


def test_a_checkpoint_alone_gives_the_stage_s_predictions(
    chain: Chain, checkpoint: Path, tmp_path: Path
) -> None:
    config = chain.config()
    refiner = from_checkpoint(checkpoint, infer=config.infer, device="cpu")
    assert refiner.setup.classes == load(chain.manifest)[1]
    folder = expand_path(config.data.root)
    with Shard(chain.predict(config, checkpoint, tmp_path / "p.h5")) as shard:
        for item in shard:
            (file,) = folder.rglob(f"{item.id}.jpg")
            probs = refiner.probabilities(np.asarray(Image.open(file).convert("RGB")))
            labels = probs["multi"].argmax(0).numpy()
            np.testing.assert_array_equal(labels, item.arrays["multi"])


@pytest.mark.slow
def test_a_checkpoint_on_another_clip_is_refused(checkpoint: Path, chain: Chain) -> None:
    clip = load_clip("ViT-B-32-quickgelu", "random")
    with pytest.raises(ArtifactError, match="was trained with CLIP weights of sha256"):
        from_checkpoint(checkpoint, clip=clip, device="cpu")
