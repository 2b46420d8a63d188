"""WeCLIP from photos to scores and predictions, on a few scenes of the demo with its small CLIP."""

import copy
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.multiprocessing import start_processes

from tests.dino.models import SECTION
from tests.refine.chain import Chain
from tests.refine.every_method import TRAIN, MethodTests, assert_normalised_cams, option
from wsss.artifacts.errors import ArtifactError
from wsss.clip.input import EncoderInput
from wsss.config.errors import ConfigError
from wsss.config.model import Config
from wsss.data.manifest_folder import load
from wsss.labels.ignore import IGNORED
from wsss.refine.inputs import CamSet
from wsss.refine.training import image_labels
from wsss.refine.training.crops import CropBatch
from wsss.refine.training.image_labels import ImageLabels
from wsss.refine.weclip.method import WeClip

WECLIP = {"width": 16, "rfm_start": 2}
CHAIN = {"refine": {"method": "weclip", "train": TRAIN, "weclip": WECLIP}}
PADDED = {"refine": {"train": {"scale_range": [0.3, 0.6]}}}
"""Every crop is padded."""
BOTH = {"segmentation", "affinity"}


class TestWeClip(MethodTests):
    trained = ("fusion", "decoder")
    losses = ("segmentation", "affinity")
    inference = ({}, *({"infer": i} for i in (
        {"grid": "floored"}, {"dropout": "on"}, {"long_side": 72}
    )))  # fmt: skip
    acting = PADDED
    step = WECLIP["rfm_start"]
    resized = option("weclip", width=32)
    options = (
        (option("weclip", crop_visibility="image"), BOTH),
        (option("weclip", ignore_band=None), BOTH),
        (option("weclip", padding="labelled"), BOTH),
        (option("weclip", affinity="raw"), BOTH),
        (option("weclip", block_distance="signed", rfm_blocks=11), BOTH),
        (option("weclip", rfm_blocks=2), BOTH),
        (option("weclip", affinity_radius=1), {"affinity"}),
        (option("weclip", affinity_weight=1.0), set()),
        ({"cams": {"affinity": {"kind": "joined"}}}, BOTH),
        ({"cams": {"affinity": {"kind": "distribution", "tau": 0.5}}}, BOTH),
        ({"cams": {"affinity": {"kind": "feature"}}} | option("weclip", rfm_start=9), BOTH),
        ({"cams": {"affinity": {"kind": "dino"}}, "dino": SECTION}, BOTH),
    )


def test_a_method_may_have_a_mean_teacher(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves after each step, and its frozen weights do not count as trained."""
    steps: list[int] = []
    monkeypatch.setattr(WeClip, "after_step", lambda self, step: steps.append(step))
    chain.train(chain.config(), tmp_path)
    assert steps == [*range(TRAIN["iterations"])]
    refiner = chain.refiner(chain.config())
    counts = refiner.parameter_counts()
    refiner.trained.add_module("teacher", copy.deepcopy(refiner.trained).requires_grad_(False))
    assert refiner.parameter_counts() == counts


def test_scores_of_the_refined_cam(chain: Chain, checkpoint: Path, tmp_path: Path) -> None:
    config = chain.config(infer={"scores": "cam"})
    assert_normalised_cams(chain.apply(config, checkpoint, tmp_path / "cam.h5"))


def _crops(chain: Chain, config: Config, count: int = 4) -> Iterator[tuple[WeClip, CropBatch]]:
    refiner = chain.refiner(config)
    for batch in itertools.islice(chain.stream(config, refiner).batches(0), count):
        yield cast(WeClip, refiner), batch


def test_published_labels_every_pixel_and_corrected_ignores_padding(chain: Chain) -> None:
    for refiner, batch in _crops(chain, chain.config(variant="published", **PADDED)):
        assert not batch.valid.all()
        labels = refiner.pseudo_labels(batch, refiner.encode(batch, rfm=False), None)
        assert (labels != IGNORED).all()
    for refiner, batch in _crops(chain, chain.config(**PADDED)):
        affinity = torch.ones(len(batch.images), 64, 64)
        labels = refiner.pseudo_labels(batch, refiner.encode(batch, rfm=True), affinity)
        assert (labels[~batch.valid] == IGNORED).all()
        assert (labels[batch.valid] != IGNORED).any()


@pytest.mark.slow
def test_a_tag_that_the_crop_does_not_show_gets_no_label(chain: Chain) -> None:
    """The published form gives every tag a full peak; both corrections can leave one out."""
    labelled = {}
    for name in ("crop", "gated", "located", "image"):
        zoomed = {"train": {"scale_range": [2.0, 2.0]}, "weclip": {"crop_visibility": name}}
        rows: list[bool] = []
        for refiner, batch in _crops(chain, chain.config(refine=zoomed)):
            affinity = torch.ones(len(batch.images), 64, 64)
            labels = refiner.pseudo_labels(batch, refiner.encode(batch, rfm=True), affinity)
            pairs = zip(batch.image_index, batch.classes, strict=True)
            rows += [bool((labels[image] == index + 1).any()) for image, index in pairs]
        labelled[name] = sum(rows) / len(rows)
    assert labelled["image"] < labelled["crop"]
    assert labelled["located"] < labelled["crop"]
    assert labelled["gated"] <= labelled["crop"]


def test_a_crop_of_an_image_without_tags_teaches_nothing(chain: Chain) -> None:
    packed = ("image_index", "classes", "probabilities", "initial", "maps")
    for refiner, batch in _crops(chain, chain.config(variant="published")):
        rows = batch.image_index != 0
        bare = replace(batch, **{name: getattr(batch, name)[rows] for name in packed})
        labels = refiner.pseudo_labels(bare, refiner.encode(bare, rfm=False), None)
        assert (labels[0] == IGNORED).all()
        assert (labels[1] != IGNORED).any()


def test_labels_of_images_are_made_once(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """On all cores: the other processes of the training wait."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "9")
    monkeypatch.setattr(image_labels, "cores", lambda: 6)
    inputs = chain.refiner(chain.config()).setup.encoder_input
    manifest, _ = load(chain.manifest)
    with CamSet([chain.cams["train"]], manifest.split("train")) as cams:
        with patch.object(image_labels, "ordered_map", wraps=image_labels.ordered_map) as mapped:
            first = ImageLabels(cams, inputs, None, chain.folder / "labels")
        assert mapped.call_args.kwargs == {"threads": 6}
        labels = {image: first.read(image) for image in cams.ids}
        calls: list[str] = []
        monkeypatch.setattr(ImageLabels, "_label", lambda self, image: calls.append(image))
        second = ImageLabels(cams, inputs, None, chain.folder / "labels")
        assert not calls
        for image, label in labels.items():
            np.testing.assert_array_equal(second.read(image), label)
            assert label.max() < IGNORED


def _make_labels(process: int, chain: Chain, folder: Path) -> None:
    """As a training does when it starts, and slowly; notes the images that it labelled."""
    label = ImageLabels._label

    def slow_label(self: ImageLabels, image: str) -> np.ndarray:
        time.sleep(0.2)
        with (folder / "images.txt").open("a") as stream:
            stream.write(f"{image}\n")
        return label(self, image)

    ImageLabels._label = slow_label
    inputs = EncoderInput(chain.config().clip, folder / "cache", device="cpu")
    with CamSet([chain.cams["train"]], load(chain.manifest)[0].split("train")) as cams:
        labels = ImageLabels(cams, inputs, None, folder / "cache")
        largest = sorted(int(labels.read(image).max()) for image in cams.ids)
    (folder / f"labels-{process}.txt").write_text(str(largest))


@pytest.mark.slow
def test_trainings_that_start_together_share_the_work(chain: Chain, tmp_path: Path) -> None:
    start_processes(_make_labels, (chain, tmp_path), nprocs=2, start_method="fork")
    first, second = ((tmp_path / f"labels-{process}.txt").read_text() for process in (0, 1))
    assert first == second != "[]"
    images = (tmp_path / "images.txt").read_text().split()
    assert len(images) == len(set(images)) == 7


def test_labels_of_other_names_are_others(chain: Chain) -> None:
    """A cache whose items have the old ids does not serve renamed photos."""
    inputs = chain.refiner(chain.config()).setup.encoder_input
    manifest, _ = load(chain.manifest)
    with CamSet([chain.cams["train"]], manifest.split("train")) as cams:
        labels = ImageLabels(cams, inputs, None, chain.folder / "labels")
        image, *_ = cams.ids
        sample, digest = cams.sample(image), cams.digest(image)
        with (
            patch.object(cams, "sample", lambda _: sample),
            patch.object(cams, "digest", lambda _: digest),
        ):
            assert labels._key(image) != labels._key(f"{image}-renamed")


def test_the_stream_is_seekable_and_seeded(chain: Chain) -> None:
    config = chain.config()
    stream = chain.stream(config, chain.refiner(config))
    batches = list(itertools.islice(stream.batches(0), 5))
    third = next(stream.batches(3))
    for name, value in vars(batches[3]).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(torch.nan_to_num(value), torch.nan_to_num(getattr(third, name)))
    assert not torch.equal(batches[0].images, batches[1].images)


def test_what_does_not_fit_is_refused(chain: Chain, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"refine.train.crop is 60; expected a multiple"):
        chain.train(chain.config(refine={"train": {"crop": 60}}), tmp_path)
    none = chain.config(refine={"method": "none"})
    with pytest.raises(ArtifactError, match="'weclip', the configuration says 'none'"):
        chain.apply(none, checkpoint, tmp_path / "s.h5")
    with pytest.raises(ValueError, match=r"refine\.method is none: CAMs are used as they are"):
        chain.train(none, tmp_path)
    with pytest.raises(ConfigError, match="crop_visibility to image"):
        chain.config(
            variant="published", cams={"source": "external", "external": {"path": "seeds"}}
        )
    with pytest.raises(ConfigError, match=r"heads must divide"):
        chain.config(refine={"weclip": {"width": 20}})
