"""WeCLIP from photos to scores and predictions, on a few scenes of the demo with its small CLIP."""

import csv
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.refine.chain import Chain
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.config.errors import ConfigError
from wsss.config.load import overlay
from wsss.config.model import Config
from wsss.data.manifest_folder import load
from wsss.labels.ignore import IGNORED
from wsss.refine.inputs import CamSet
from wsss.refine.training.crops import CropBatch, CropStream
from wsss.refine.training.image_labels import ImageLabels
from wsss.refine.weclip.method import WeClip

TRAIN = {"iterations": 6, "warmup": 2, "batch": 3, "checkpoint_every": 2, "crop": 64}
WECLIP: dict[str, Any] = {"width": 16, "rfm_start": 3}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    refine = {"method": "weclip", "train": TRAIN, "weclip": WECLIP}
    return Chain(tmp_path_factory.mktemp("weclip"), refine)


@pytest.fixture(scope="module")
def checkpoint(chain: Chain) -> Path:
    return chain.train(chain.config(), chain.folder / "trained")


def test_checkpoint_holds_what_is_trained_alone(chain: Chain, checkpoint: Path) -> None:
    tensors, made = load_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in tensors} == {"fusion", "decoder"}
    assert made.config["refine"]["method"] == "weclip"
    with (checkpoint.parent / "loss.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["step", "lr", "loss", "segmentation", "affinity"]
    assert len(rows) == TRAIN["iterations"]


def test_scores_are_probabilities_of_the_tags(chain: Chain, checkpoint: Path) -> None:
    path = chain.apply(chain.config(), checkpoint, chain.folder / "scores.h5")
    with Shard(path, kind="scores") as shard, Shard(chain.cams["train"]) as cams:
        for item in shard:
            assert item.attrs["classes"] == cams.read(item.id).attrs["classes"]
            total = item.arrays["score"].astype(np.float32).sum(0) + item.arrays["background"]
            np.testing.assert_allclose(total, 1, atol=2e-3)


def test_scores_of_the_refined_cam(chain: Chain, checkpoint: Path) -> None:
    config = chain.config(infer={"scores": "cam"})
    with Shard(chain.apply(config, checkpoint, chain.folder / "cam.h5"), kind="scores") as shard:
        for item in shard:
            assert set(item.arrays) == {"score"}
            peaks = item.arrays["score"].max(axis=(1, 2))
            assert ((peaks == 1) | (peaks == 0)).all()


@pytest.mark.parametrize("infer", [{}, {"grid": "floored"}, {"dropout": "on"}, {"long_side": 72}])
def test_predictions_do_not_depend_on_their_neighbours(
    chain: Chain, checkpoint: Path, infer: dict[str, Any], tmp_path: Path
) -> None:
    config = chain.config(infer=infer)
    paths = [tmp_path / f"{n}.h5" for n in range(3)]
    chain.predict(config, checkpoint, paths[0])
    for part, path in enumerate(paths[1:], start=1):
        chain.predict(config, checkpoint, path, (part, 2))
    with Shard(paths[0], kind="predictions") as whole:
        found = {}
        for path in paths[1:]:
            with Shard(path) as part:
                found |= {item.id: item.arrays for item in part}
        for item in whole:
            assert set(item.arrays) == {"single", "multi"}
            assert list(item.arrays["single"].shape) == item.attrs["size"]
            for name, array in item.arrays.items():
                np.testing.assert_array_equal(array, found[item.id][name])


def test_crf_adds_protocols(chain: Chain, checkpoint: Path, tmp_path: Path) -> None:
    path = chain.predict(chain.config(infer={"crf": True}), checkpoint, tmp_path / "crf.h5")
    with Shard(path) as shard:
        assert set(shard.read(shard.ids[0]).arrays) == {
            "single", "multi", "single_crf", "multi_crf",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "acts_on"),
    [
        ({"refine": {"weclip": {"crop_visibility": "image"}}}, {"segmentation", "affinity"}),
        ({"refine": {"weclip": {"ignore_band": None}}}, {"segmentation", "affinity"}),
        ({"refine": {"weclip": {"padding": "labelled"}}}, {"segmentation", "affinity"}),
        ({"refine": {"weclip": {"affinity": "raw"}}}, {"segmentation", "affinity"}),
        (
            {"refine": {"weclip": {"block_distance": "signed", "rfm_blocks": 11}}},
            {"segmentation", "affinity"},
        ),
        ({"refine": {"weclip": {"rfm_blocks": 2}}}, {"segmentation", "affinity"}),
        ({"refine": {"weclip": {"affinity_radius": 1}}}, {"affinity"}),
        ({"refine": {"weclip": {"affinity_weight": 1.0}}}, set()),
    ],
)
def test_every_option_acts_on_its_loss(
    chain: Chain, changes: dict[str, Any], acts_on: set[str]
) -> None:
    """With the refinement module on, and padded crops."""
    padded = {"refine": {"train": {"scale_range": [0.3, 0.6]}}}
    before = chain.loss(chain.config(**padded), step=WECLIP["rfm_start"])
    after = chain.loss(chain.config(**overlay(padded, changes)), step=WECLIP["rfm_start"])
    assert after["loss"] != before["loss"]
    assert {name for name in before if after[name] != before[name]} == {"loss"} | acts_on


def _crops(chain: Chain, config: Config, count: int = 4) -> Iterator[tuple[WeClip, CropBatch]]:
    """Batches of crops without labels of whole images."""
    refiner = chain.refiner(config)
    manifest, _ = load(chain.manifest)
    cams = CamSet([chain.cams["train"]], manifest.split("train"))
    inputs = refiner.setup.encoder_input
    stream = CropStream(cams, inputs, config.refine.train, seed=0, workers=1)
    for batch in itertools.islice(stream.batches(0), count):
        yield cast(WeClip, refiner), batch


def test_published_labels_every_pixel_and_corrected_ignores_padding(chain: Chain) -> None:
    crops = {"refine": {"train": {"scale_range": [0.3, 0.6]}}}  # so that every crop is padded
    for refiner, batch in _crops(chain, chain.config(variant="published", **crops)):
        assert not batch.valid.all()
        labels = refiner.pseudo_labels(batch, refiner.encode(batch, rfm=False), None)
        assert (labels != IGNORED).all()
    for refiner, batch in _crops(chain, chain.config(**crops)):
        affinity = torch.ones(len(batch.images), 64, 64)
        labels = refiner.pseudo_labels(batch, refiner.encode(batch, rfm=True), affinity)
        assert (labels[~batch.valid] == IGNORED).all()
        assert (labels[batch.valid] != IGNORED).any()


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
    inputs = chain.refiner(chain.config()).setup.encoder_input
    manifest, _ = load(chain.manifest)
    with CamSet([chain.cams["train"]], manifest.split("train")) as cams:
        first = ImageLabels(cams, inputs, None, chain.folder / "labels")
        made = {image: first.read(image) for image in cams.ids}
        calls: list[str] = []
        monkeypatch.setattr(ImageLabels, "_label", lambda self, image: calls.append(image))
        second = ImageLabels(cams, inputs, None, chain.folder / "labels")
        assert not calls
        for image, label in made.items():
            np.testing.assert_array_equal(second.read(image), label)
            assert label.max() < IGNORED


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
    other = chain.config(refine={"weclip": {"width": 32}})
    with pytest.raises(ArtifactError, match=r"is of another class list, encoder or refine\.weclip"):
        chain.apply(other, checkpoint, tmp_path / "s.h5")
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


def test_published_feeds_imagenet_normalisation(chain: Chain) -> None:
    assert chain.config(variant="published").clip.normalization == "imagenet"
    assert chain.config().clip.normalization == "clip"
    explicit = chain.config(variant="published", clip={"normalization": "clip"})
    assert explicit.clip.normalization == "clip"
