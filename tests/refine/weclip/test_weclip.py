"""WeCLIP from photos to scores and predictions, on a few scenes of the demo with its small CLIP."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.refine.chain import Chain, assert_same_weights
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.clip.input import EncoderInput
from wsss.config.errors import ConfigError
from wsss.config.load import overlay
from wsss.config.model import Config
from wsss.data.manifest_folder import load
from wsss.labels.ignore import IGNORED
from wsss.refine import stage
from wsss.refine.inputs import CamSet
from wsss.refine.training.crops import CropBatch, CropStream
from wsss.refine.training.image_labels import ImageLabels
from wsss.refine.training.trainer import Trainer
from wsss.refine.weclip.teacher import PseudoLabels

TRAIN = {"iterations": 6, "warmup": 2, "batch": 3, "checkpoint_every": 2, "crop": 64}
WECLIP = {"width": 16, "rfm_start": 3}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    refine = {"method": "weclip", "train": TRAIN, "weclip": WECLIP}
    return Chain(tmp_path_factory.mktemp("weclip"), refine)


@pytest.fixture(scope="module")
def checkpoint(chain: Chain) -> Path:
    return chain.train(chain.config(), chain.folder / "trained")


def _teacher(chain: Chain, config: Config) -> tuple[PseudoLabels, CropStream]:
    from wsss.clip.text.embeddings import text_bank

    inputs = EncoderInput(config.clip, chain.folder / "cache", device="cpu")
    manifest, classes = load(chain.manifest)
    words = (classes.prompts, classes.backgrounds, config.clip.template)
    from_crop = config.refine.weclip.crop_visibility != "image"
    bank = text_bank(inputs.clip, *words, cache_dir=None) if from_crop else None
    cams = CamSet([chain.cams["train"]], manifest.split("train"))
    stream = CropStream(cams, inputs, config.refine.train, seed=0, workers=1)
    return PseudoLabels(config, inputs.encoder, bank), stream


def test_checkpoint_holds_what_is_trained_alone(chain: Chain, checkpoint: Path) -> None:
    tensors, made = load_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in tensors} == {"fusion", "decoder"}
    assert made.config["refine"]["method"] == "weclip"
    with (checkpoint.parent / "loss.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["step", "lr", "loss", "segmentation", "affinity"]
    assert len(rows) == TRAIN["iterations"]


@pytest.mark.slow
def test_an_interrupted_training_ends_in_the_same_weights(
    chain: Chain, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._step

    def failing(self: Any, number: int, *args: Any) -> list[float]:
        if number == 5:
            raise OSError("pulled the plug")
        return step(self, number, *args)

    where = chain.folder / "interrupted"
    monkeypatch.setattr(Trainer, "_step", failing)
    with pytest.raises(OSError, match="plug"):
        chain.train(chain.config(), where)
    monkeypatch.undo()
    assert_same_weights(chain.train(chain.config(), where), checkpoint)
    assert (where / "loss.csv").read_text() == (checkpoint.parent / "loss.csv").read_text()


def test_workers_and_threads_that_decode_change_nothing(chain: Chain, checkpoint: Path) -> None:
    again = chain.config(compute={"workers": 1})
    assert_same_weights(chain.train(again, chain.folder / "again"), checkpoint)


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


@pytest.mark.slow
@pytest.mark.parametrize("infer", [{}, {"grid": "floored"}, {"dropout": "on"}, {"long_side": 72}])
def test_predictions_do_not_depend_on_their_neighbours(
    chain: Chain, checkpoint: Path, infer: dict[str, Any], tmp_path: Path
) -> None:
    config = chain.config(infer=infer)
    paths = [tmp_path / f"{n}.h5" for n in range(3)]
    chain.predict(config, checkpoint, paths[0])
    for number, path in enumerate(paths[1:], start=1):
        args = ("val", (number, 2), checkpoint, path, chain.folder / "cache")
        stage.predict(config, chain.manifest, *args)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "published"},
        {"refine": {"weclip": {"crop_visibility": "image", "ignore_band": None}}},
        {"refine": {"weclip": {"crop_visibility": "located"}}},
        {"refine": {"weclip": {"padding": "labelled", "affinity": "raw"}}},
        {"refine": {"weclip": {"block_distance": "signed", "crop_visibility": "crop"}}},
        {"cams": {"affinity": {"enabled": False}}},
    ],
)
def test_every_option_trains(chain: Chain, changes: dict[str, Any], tmp_path: Path) -> None:
    short = {"refine": {"train": {"iterations": 2, "warmup": 0}, "weclip": {"rfm_start": 1}}}
    config = chain.config(**overlay(short, changes))
    with (chain.train(config, tmp_path).parent / "loss.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert all(0 < float(row["loss"]) < 100 for row in rows)


def _one(chain: Chain, config: Config, use: Callable[[PseudoLabels, CropBatch], None]) -> None:
    teacher, stream = _teacher(chain, config)
    for number, batch in zip(range(4), stream.batches(0), strict=False):
        del number
        use(teacher, batch)


def test_published_labels_every_pixel_and_corrected_ignores_padding(chain: Chain) -> None:
    crops = {"refine": {"train": {"scale_range": [0.3, 0.6]}}}  # so that every crop is padded

    def published(teacher: PseudoLabels, batch: CropBatch) -> None:
        assert not batch.valid.all()
        frozen = teacher.look(batch, rfm=False)
        assert (teacher.labels(batch, frozen, None) != IGNORED).all()

    def corrected(teacher: PseudoLabels, batch: CropBatch) -> None:
        frozen = teacher.look(batch, rfm=True)
        affinity = torch.ones(len(batch.images), 64, 64)
        labels = teacher.labels(batch, frozen, affinity)
        assert (labels[~batch.valid] == IGNORED).all()
        assert (labels[batch.valid] != IGNORED).any()

    _one(chain, chain.config(variant="published", **crops), published)
    _one(chain, chain.config(**crops), corrected)


def test_a_tag_that_the_crop_does_not_show_gets_no_label(chain: Chain) -> None:
    """The published form gives every tag a full peak; both corrections can leave one out."""
    seen = {}
    for name in ("crop", "gated", "located", "image"):
        peaks, labelled = [], []

        def look(teacher: PseudoLabels, batch: CropBatch, into: Any = (peaks, labelled)) -> None:
            frozen = teacher.look(batch, rfm=True)
            labels = teacher.labels(batch, frozen, torch.ones(len(batch.images), 64, 64))
            for owner, index in zip(batch.owner, batch.classes, strict=True):
                into[1].append(bool((labels[owner] == index + 1).any()))
            into[0].append(batch.maps.flatten(1).amax(1))

        zoomed = {"train": {"scale_range": [2.0, 2.0]}, "weclip": {"crop_visibility": name}}
        _one(chain, chain.config(refine=zoomed), look)
        seen[name] = sum(labelled) / len(labelled)
    assert seen["image"] < seen["crop"]
    assert seen["located"] < seen["crop"]
    assert seen["gated"] <= seen["crop"]


def test_a_crop_of_an_image_without_tags_teaches_nothing(chain: Chain) -> None:
    def without(teacher: PseudoLabels, batch: CropBatch) -> None:
        rows = batch.owner != 0
        bare = CropBatch(
            **vars(batch)
            | {
                name: getattr(batch, name)[rows]
                for name in ("owner", "classes", "probabilities", "initial", "maps")
            }
        )
        labels = teacher.labels(bare, teacher.look(bare, rfm=False), None)
        assert (labels[0] == IGNORED).all()
        assert (labels[1] != IGNORED).any()

    _one(chain, chain.config(variant="published"), without)


def test_labels_of_images_are_made_once(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    config = chain.config()
    inputs = EncoderInput(config.clip, chain.folder / "cache", device="cpu")
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
    _, stream = _teacher(chain, chain.config())
    batches = [batch for _, batch in zip(range(5), stream.batches(0), strict=False)]
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
    with pytest.raises(ArtifactError, match="was trained for the refiner 'weclip'"):
        chain.apply(none, checkpoint, tmp_path / "s.h5")
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
