"""ExCEL from photos to scores and predictions, on a few scenes of the demo with its small CLIP."""

from __future__ import annotations

import csv
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
from wsss.refine.blocks.head import Head
from wsss.refine.excel.method import Step, make_teacher
from wsss.refine.excel.teacher import Teacher, look, relation, shift
from wsss.refine.inputs import CamSet
from wsss.refine.training.crops import CropBatch, CropStream
from wsss.refine.training.trainer import Trainer

TRAIN = {"iterations": 6, "warmup": 2, "batch": 3, "checkpoint_every": 2, "crop": 64}
EXCEL = {"width": 16, "lvc_start": 3, "self_training_start": 5}
CAMS = {"source": "patch_text", "affinity": {"last_blocks": 6}}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    refine = {"method": "excel", "train": TRAIN, "excel": EXCEL}
    return Chain(tmp_path_factory.mktemp("excel"), refine, cams=CAMS)


@pytest.fixture(scope="module")
def checkpoint(chain: Chain) -> Path:
    return chain.train(chain.config(), chain.folder / "trained")


def _parts(chain: Chain, config: Config) -> tuple[Teacher, CropBatch]:
    inputs = EncoderInput(config.clip, chain.folder / "cache", device="cpu")
    manifest, classes = load(chain.manifest)
    teacher = make_teacher(config, classes, inputs, chain.folder / "cache")
    cams = CamSet([chain.cams["train"]], manifest.split("train"))
    stream = CropStream(cams, inputs, config.refine.train, seed=0, workers=1)
    return teacher, next(stream.batches(0))


def test_checkpoint_holds_what_is_trained_alone(chain: Chain, checkpoint: Path) -> None:
    tensors, made = load_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in tensors} == {"fusion", "decoder"}
    assert tensors["fusion.first_weight"].shape[0] == 12  # every block, not all but the last
    assert made.config["refine"]["method"] == "excel"
    with (checkpoint.parent / "loss.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["step", "lr", "loss", "segmentation", "affinity"]
    assert len(rows) == TRAIN["iterations"]


@pytest.mark.parametrize(("labels", "count"), [(21, 6_313_237), (81, 6_328_657)])
def test_published_number_of_parameters(chain: Chain, labels: int, count: int) -> None:
    settings = chain.config(refine={"excel": {"width": 256}}).refine.excel
    head = Head(12, 768, labels, settings)
    assert sum(parameter.numel() for parameter in head.parameters()) == count


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


def test_scores_are_probabilities_of_the_tags(chain: Chain, checkpoint: Path) -> None:
    path = chain.apply(chain.config(), checkpoint, chain.folder / "scores.h5")
    with Shard(path, kind="scores") as shard, Shard(chain.cams["train"]) as cams:
        for item in shard:
            assert item.attrs["classes"] == cams.read(item.id).attrs["classes"]
            total = item.arrays["score"].astype(np.float32).sum(0) + item.arrays["background"]
            np.testing.assert_allclose(total, 1, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("scores", ["cam", "static_cam"])
@pytest.mark.parametrize("variant", ["corrected", "published"])
def test_scores_of_the_calibrated_cam(
    chain: Chain, checkpoint: Path, variant: str, scores: str, tmp_path: Path
) -> None:
    config = chain.config(variant=variant, infer={"scores": scores})
    with Shard(chain.apply(config, checkpoint, tmp_path / "cam.h5"), kind="scores") as shard:
        for item in shard:
            assert set(item.arrays) == {"score"}
            peaks = item.arrays["score"].max(axis=(1, 2))
            assert ((peaks == 1) | (peaks == 0)).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"infer": {}},
        {"clip": {"keep_ratio": False, "input_size": 64}, "infer": {"scales": [1.0, 0.7, 1.5]}},
        {"infer": {"mirror_first": False, "scales": [1.0]}},
    ],
)
def test_predictions(
    chain: Chain, checkpoint: Path, changes: dict[str, Any], tmp_path: Path
) -> None:
    path = chain.predict(chain.config(**changes), checkpoint, tmp_path / "p.h5")
    with Shard(path, kind="predictions") as shard:
        for item in shard:
            assert list(item.arrays["single"].shape) == item.attrs["size"]
            same = np.array_equal(item.arrays["single"], item.arrays["multi"])
            if changes["infer"].get("mirror_first") is False:
                assert same  # nothing but scale 1 as it is


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "published"},
        {"refine": {"excel": {"crop_visibility": "image"}}},
        {"refine": {"excel": {"crop_visibility": "gated", "ignore_band": None}}},
        {"refine": {"excel": {"features": "aliased", "relation_dropout": "on"}}},
        {"cams": {"affinity": {"enabled": False}}},
        {"cams": {"patch_text": {"relation": "vv", "heads": "each", "tse": {"form": "topk"}}}},
    ],
)
def test_every_option_trains(chain: Chain, changes: dict[str, Any], tmp_path: Path) -> None:
    short = {
        "refine": {
            "train": {"iterations": 3, "warmup": 0},
            "excel": {"lvc_start": 1, "self_training_start": 2},
        }
    }
    config = chain.config(**overlay(short, changes))
    with (chain.train(config, tmp_path).parent / "loss.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert all(0 < float(row["loss"]) < 100 for row in rows)


def test_it_takes_any_cam(tmp_path: Path) -> None:
    refine = {
        "method": "excel",
        "train": TRAIN | {"iterations": 2},
        "excel": EXCEL | {"crop_visibility": "image", "lvc_start": 1},
    }
    chain = Chain(tmp_path, refine, cams={"source": "grad_cam"})
    assert chain.train(chain.config(), tmp_path / "trained").exists()


def test_relation_of_an_image_hangs_on_it_alone(chain: Chain) -> None:
    torch.manual_seed(0)
    fused = torch.randn(3, 8, 4, 4) + torch.randn(3, 8, 1, 1)
    settings = chain.config().refine.excel
    together, alone = relation(fused, settings), relation(fused[:1], settings)
    torch.testing.assert_close(together[:1], alone)
    published = chain.config(variant="published").refine.excel
    assert not torch.allclose(relation(fused, published)[:1], relation(fused[:1], published))


def test_shift_leaves_out_what_is_less_alike_than_the_mean() -> None:
    found = shift(torch.tensor([[[1.0, -0.1, 0.0], [0.5, 0.5, -3.0], [-1.0, -1.0, 2.0]]]))
    expected = [[0.7311, 0.0, 0.2689], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    torch.testing.assert_close(found[0], torch.tensor(expected), rtol=1e-3, atol=1e-4)


def test_published_features_are_aliased(chain: Chain) -> None:
    """Eq. 14 of docs/methods/excel.md: the calibrated stream, states after attention, the last."""
    teacher, batch = _parts(chain, chain.config())
    scores = teacher.scores
    middles = range(scores.first + 1, 12)
    run = scores.encoder.run(batch.images, outputs_of=range(12), post_attention_of=middles)
    clean, aliased = (look(scores, batch.images, form) for form in ("clean", "aliased"))
    for number in range(12):
        expected = run.outputs[number]
        torch.testing.assert_close(clean.features[number], expected[:, 1:])
        if number == scores.first - 1:
            expected = aliased.stream
        elif scores.first <= number < 11:
            expected = run.post_attention[number + 1]
        torch.testing.assert_close(aliased.features[number], expected[:, 1:])


def test_dynamic_cam_differs_and_teaches_from_its_start(chain: Chain) -> None:
    config = chain.config()
    teacher, batch = _parts(chain, config)
    seen = teacher.look(batch.images, dynamic=True)
    related = relation(torch.randn(len(batch.images), 16, *seen.grid), config.refine.excel)
    static, dynamic = teacher.features(seen), teacher.features(seen, related)
    assert torch.equal(static[:, 0], dynamic[:, 0])  # the class token is the encoder's
    assert not torch.allclose(static[:, 1:], dynamic[:, 1:])
    before = teacher.labels(batch, seen, None)
    assert not torch.equal(before, teacher.labels(batch, seen, related))


def test_late_labels_are_the_decoders_own(chain: Chain) -> None:
    config = chain.config()
    teacher, batch = _parts(chain, config)
    torch.manual_seed(0)
    head = Head(12, teacher.scores.encoder.width, 11, config.refine.excel).eval()
    step = Step(config, head, teacher)
    early, late = step(4, batch), step(5, batch)
    assert early["segmentation"] == late["segmentation"]
    assert early["affinity"] != late["affinity"]


def test_padding_and_what_is_not_shown_teach_nothing(chain: Chain) -> None:
    small = chain.config(refine={"train": {"scale_range": [0.3, 0.6]}})
    teacher, batch = _parts(chain, small)
    assert not batch.valid.all()
    labels = teacher.labels(batch, teacher.look(batch.images, dynamic=False), None)
    assert (labels[~batch.valid] == IGNORED).all()
    assert (labels[batch.valid] != IGNORED).any()
    hidden = CropBatch(**vars(batch) | {"maps": torch.zeros_like(batch.maps)})
    labels = teacher.labels(hidden, teacher.look(batch.images, dynamic=False), None)
    for owner, index in zip(batch.owner, batch.classes, strict=True):
        assert not (labels[owner] == index + 1).any()


def test_what_does_not_fit_is_refused(chain: Chain, checkpoint: Path, tmp_path: Path) -> None:
    other = chain.config(refine={"excel": {"width": 32}})
    with pytest.raises(ArtifactError, match=r"is of another class list, encoder or refine\.excel"):
        chain.apply(other, checkpoint, tmp_path / "s.h5")
    with pytest.raises(ConfigError, match="relation is none"):
        chain.config(cams={"patch_text": {"relation": "none"}})
    with pytest.raises(ConfigError, match="crop_visibility to image"):
        chain.config(cams={"source": "external", "external": {"path": "seeds"}})
    with pytest.raises(ConfigError, match=r"heads must divide"):
        chain.config(refine={"excel": {"width": 20}})
    many = chain.config(cams={"patch_text": {"blocks": 13}})
    with pytest.raises(ValueError, match="blocks is 13: the encoder has 12"):
        chain.train(many, tmp_path)
