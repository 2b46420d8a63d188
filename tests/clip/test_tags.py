"""A manifest with other tags: removed, wrong, or those that CLIP predicts."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import write_manifest_folder
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.clip.input import EncoderInput
from wsss.clip.tags.stage import run
from wsss.clip.text.embeddings import text_bank
from wsss.config.load import from_mapping
from wsss.data.datasets.classes import ClassList
from wsss.data.errors import DataError
from wsss.data.ingest.stage import ingest
from wsss.data.manifest import Manifest, Sample
from wsss.data.manifest_folder import load, load_given, read_provenance
from wsss.demo.dataset import generate

CLIP = {"keep_ratio": False, "input_size": 96}  # as open_clip's own network wants it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo, ingested."""
    here = tmp_path_factory.mktemp("demo")
    generate(here / "data", train=8, val=2)
    config = from_mapping({"data": {"root": str(here / "data"), "demo_images": [8, 2]}})
    ingest(here / "manifest", **STAGES["ingest"].arguments(config))
    return here


def _changed(folder: Path, out: Path, **noise: Any) -> Manifest:
    config = from_mapping({"tag_noise": noise, "clip": CLIP, "compute": {"device": "cpu"}})
    arguments = STAGES["tag_noise"].arguments(config)
    run(folder / "manifest", out, folder / "cache", **arguments)
    return load(out)[0]


def _tags(manifest: Manifest) -> dict[tuple[str, str], tuple[int, ...]]:
    return {(s.split, s.id): s.tags for s in manifest}


def test_train_alone_changes_and_the_given_tags_stay_beside(folder: Path, tmp_path: Path) -> None:
    given, classes = load(folder / "manifest")
    noisy = _changed(folder, tmp_path / "a", dropped=0.5, added=0.5)
    assert [s.id for s in noisy] == [s.id for s in given]
    assert noisy.split("train") != given.split("train")
    assert noisy.split("val") == given.split("val")
    assert load_given(tmp_path / "a") == given
    assert load_given(folder / "manifest") is None
    assert load(tmp_path / "a")[1] == classes
    assert read_provenance(tmp_path / "a").config["tag_noise"]["dropped"] == 0.5
    both = _changed(folder, tmp_path / "b", added=1.0, splits=["train", "val"])
    assert all(len(tags) == 1 + len(_tags(given)[image]) for image, tags in _tags(both).items())


def test_order_and_other_images_do_not_matter(folder: Path, tmp_path: Path) -> None:
    given, classes = load(folder / "manifest")
    every = _tags(_changed(folder, tmp_path / "every", dropped=0.4, added=0.4))
    turned = tuple(reversed(given.samples))[:6]
    write_manifest_folder(tmp_path / "part/manifest", classes, list(turned))
    part = _tags(_changed(tmp_path / "part", tmp_path / "noisy", dropped=0.4, added=0.4))
    assert part == {image: every[image] for image in part}
    assert len(part) == 6


def test_images_without_a_tag_are_left_out_where_it_is_asked_for(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given, _ = load(folder / "manifest")
    with caplog.at_level(logging.INFO):
        left = _changed(folder, tmp_path / "a", dropped=0.7, untagged="leave_out")
    count = len(given.split("train")) - len(left.split("train"))
    assert 0 < count < 8
    assert f"; {count} are left out, which have none" in caplog.text
    assert all(sample.tags for sample in left)
    assert left.split("val") == given.split("val")
    with pytest.raises(DataError, match=r"tag_noise.dropped: 1.0 leaves no training image a tag"):
        _changed(folder, tmp_path / "b", dropped=1.0, untagged="leave_out")
    assert not (tmp_path / "b/manifest.csv").exists()


@pytest.mark.slow
def test_clips_tags_are_what_open_clip_finds(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The probabilities are a softmax over all prompts of open_clip's own features."""
    given, classes = load(folder / "manifest")
    threshold = 0.3
    predicted = _changed(folder, tmp_path / "a", source="clip", threshold=threshold)
    config = from_mapping({"clip": CLIP})
    inputs = EncoderInput(config.clip, folder / "cache", device="cpu")
    words = (classes.prompts, classes.backgrounds, config.clip.template)
    bank = text_bank(inputs.clip, *words)
    texts = torch.cat([bank.classes, bank.backgrounds])
    seen = set()
    with Shard(tmp_path / "a/train/clip-tags.h5", kind="tags") as shard, torch.inference_mode():
        for sample in predicted.split("train"):
            feature = inputs.clip.model.encode_image(inputs.pixels(sample)[None])[0]
            logits = inputs.clip.logit_scale * texts @ (feature / feature.norm())
            probs = logits.softmax(0)[: len(classes.names)].numpy()
            stored = shard.read(sample.id).arrays["probabilities"]
            np.testing.assert_allclose(stored, probs, atol=2e-4)
            above = {k for k in range(len(probs)) if stored[k] >= threshold}
            assert set(sample.tags) == above | {int(stored.argmax())}
            assert list(sample.tags) == sorted(sample.tags, key=lambda k: -stored[k])
            seen.add(len(above))
    assert predicted.split("val") == given.split("val")
    assert {0, 1} <= seen  # some images have no class above the threshold, and keep one
    with caplog.at_level(logging.INFO):
        _changed(folder, tmp_path / "a", source="clip", threshold=0.05)
    assert "8 images: 8 reused, 0 computed" in caplog.text


def test_an_image_of_every_class_is_left_as_it_is(tmp_path: Path) -> None:
    classes = ClassList("two", ("cat", "dog"), ("cat", "dog"), ())
    sample = Sample("a", "train", tmp_path / "a.jpg", 4, 4, "0" * 64, (1, 0))
    write_manifest_folder(tmp_path / "manifest", classes, [sample])
    assert _changed(tmp_path, tmp_path / "out", added=1.0).samples == (sample,)
