"""The supervised upper bound: heads that learn from the truth, and that weak stages refuse."""

import csv
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.dino.models import SECTION as DINO
from tests.refine.chain import Chain
from wsss.artifacts.checkpoint_header import checkpoint_provenance
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.config.base import UPPER_BOUND
from wsss.config.errors import ConfigError
from wsss.config.model import Config
from wsss.data.manifest_folder import load
from wsss.labels.ignore import IGNORED
from wsss.refine.base import Refiner
from wsss.refine.blocks.grad_cam_labels import GradCamRefiner
from wsss.refine.inputs import TruthSet
from wsss.refine.released.importer import import_checkpoint
from wsss.refine.training.crops import CropBatch, CropStream
from wsss.score.truth.training_masks import run as write_truth

TRAIN = {"iterations": 2, "warmup": 0, "batch": 3, "crop": 64, "threads": 1}


@dataclass(frozen=True)
class Bound:
    """A method that also learns from the truth."""

    options: Mapping[str, Any]
    parts: Collection[str]
    """Of the supervised loss."""
    teacherless: Mapping[str, Any]
    """Options with which the weak loss takes its labels as they are."""
    weak: Mapping[str, Any]
    """Options of the weak teacher, which the supervised loss does not read."""


METHODS = {
    "weclip": Bound(
        {"width": 16},
        {"segmentation", "affinity"},
        {"crop_visibility": "image", "rfm_start": 99},
        {"rfm_start": 0},
    ),
    "weakclip": Bound(
        {"width": 16, "channels": 16, "heads": 2},
        {"seed", "auxiliary"},
        {"boundary_weight": 0.0, "tags_in_losses": "ignored"},
        {"tags_in_losses": "masked", "boundary_weight": 9.0},
    ),
    "excel": Bound(
        {"width": 16},
        {"segmentation", "affinity"},
        {"crop_visibility": "image", "lvc_start": 99, "self_training_start": None},
        {"lvc_start": 0, "self_training_start": 0},
    ),
    "weclip_plus": Bound(
        {"width": 16},
        {"segmentation", "affinity", "cross", "dice"},
        {"crop_visibility": "image", "self_training_start": None},
        {"self_training_start": 0, "source_gate": "none", "rfm_blocks": 2},
    ),
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"), {"train": TRAIN}, train=5, val=1)


@pytest.fixture(scope="module")
def truth(chain: Chain) -> Path:
    """The shard of pixel labels, the only step for which they are in reach."""
    hidden, out = chain.folder / "hidden", chain.folder / "truth.h5"
    reachable = Path(chain.base["data"]["root"]) / "SegmentationClass"
    hidden.rename(reachable)
    arguments = STAGES["truth_masks"].arguments(chain.config(supervision="masks"))
    write_truth(chain.manifest, (1, 1), out, **arguments)
    reachable.rename(hidden)
    return out


def configured(chain: Chain, method: str, supervision: str = "masks", **options: Any) -> Config:
    refine = {"method": method, method: {**METHODS[method].options, **options}}
    infer = {"scales": [1.0]}
    return chain.config(supervision=supervision, refine=refine, infer=infer, dino=DINO)


def first_batch(chain: Chain, config: Config, refiner: Refiner[Any], truth: Path) -> CropBatch:
    settings, inputs = config.refine.train, refiner.setup.encoder_input
    with TruthSet([truth], load(chain.manifest)[0].split("train")) as images:
        stream = CropStream(images, inputs, settings, seed=0, workers=1, labels=images.labels)
        return next(stream.batches(0))


def test_the_shard_holds_the_truth_and_says_so(chain: Chain, truth: Path) -> None:
    with Shard(truth, kind="truth_masks") as shard:
        assert shard.provenance.supervision == "masks"
        for item in shard:
            expected = np.asarray(Image.open(chain.folder / "hidden" / f"{item.id}.png"))
            np.testing.assert_array_equal(item.arrays["train"], expected)
            assert UPPER_BOUND in item.attrs["origin"]
            assert (expected == IGNORED).any()  # void stays void


def test_a_weak_run_gets_no_truth(chain: Chain, tmp_path: Path) -> None:
    arguments = STAGES["truth_masks"].arguments(chain.config())
    with pytest.raises(ConfigError, match="a weakly supervised run gets no pixel labels"):
        write_truth(chain.manifest, (1, 1), tmp_path / "truth.h5", **arguments)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_weak_one_with_the_truth_as_labels(
    chain: Chain, truth: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "weclip_plus":  # which learns from CAMs at every step
        monkeypatch.setattr(
            GradCamRefiner, "labels_from_cams", lambda self, batch, *_: batch.labels
        )
    config = configured(chain, method, **METHODS[method].teacherless)
    refiner = chain.refiner(config)
    refiner.train_mode(False)  # no dropout
    batch = first_batch(chain, config, refiner, truth)
    assert batch.labels is not None
    assert len(batch.classes) == 0  # neither CAMs nor tags
    losses = refiner.supervised_loss(batch)
    weak = refiner.loss(0, batch)
    assert set(losses) == {"loss", *METHODS[method].parts}
    for name, value in losses.items():
        torch.testing.assert_close(value, weak[name])
    shifted = CropBatch(**vars(batch) | {"labels": batch.labels.roll(32, -1)})
    other = refiner.supervised_loss(shifted)
    # The heads of WeCLIP+ teach each other without labels.
    assert all(other[name] != losses[name] for name in losses.keys() - {"cross"})


@pytest.mark.parametrize("method", METHODS)
def test_options_of_the_weak_teacher_change_nothing(chain: Chain, truth: Path, method: str) -> None:
    values = []
    for options in (METHODS[method].teacherless, METHODS[method].weak):
        config = configured(chain, method, **options)
        refiner = chain.refiner(config)
        refiner.train_mode(False)
        values.append(refiner.supervised_loss(first_batch(chain, config, refiner, truth))["loss"])
    assert torch.equal(*values)


@pytest.fixture(scope="module")
def supervised(chain: Chain, truth: Path) -> Path:
    config = configured(chain, "weclip")
    return chain.train(config, chain.folder / "supervised", cams=truth)


def test_a_training_on_the_truth_is_labelled(chain: Chain, supervised: Path) -> None:
    provenance = checkpoint_provenance(supervised)
    assert provenance.supervision == "masks"
    assert [entry.stage for entry in provenance.upstream] == ["truth_masks"]
    cost = json.loads((supervised.parent / "efficiency.json").read_text())
    assert cost["method"] == f"WeCLIP, {UPPER_BOUND}"
    with (supervised.parent / "loss.csv").open() as stream:
        assert next(iter(csv.DictReader(stream))).keys() >= set(METHODS["weclip"].parts)
    out = chain.predict(configured(chain, "weclip"), supervised, chain.folder / "val.h5")
    with Shard(out, kind="predictions") as shard:
        assert shard.provenance.supervision == "masks"


def test_weak_and_supervised_stages_refuse_each_other(
    chain: Chain, truth: Path, supervised: Path, tmp_path: Path
) -> None:
    weak = configured(chain, "weclip", "tags")
    both = "do not mix; pass what a run with tags made, or set supervision: masks"
    for refused in (
        lambda: chain.predict(weak, supervised, tmp_path / "p.h5"),
        lambda: chain.apply(weak, supervised, tmp_path / "s.h5"),
        lambda: chain.predict(_imported(weak, supervised), supervised, tmp_path / "p.h5"),
        lambda: _import(chain, weak, supervised, tmp_path),
    ):
        with pytest.raises(ArtifactError, match=both) as caught:
            refused()
        assert str(caught.value).startswith(f"{supervised}: ")
    with pytest.raises(ArtifactError, match="holds 'truth_masks', expected 'cams'"):
        chain.train(weak, tmp_path, cams=truth)
    with pytest.raises(ArtifactError, match="holds 'cams', expected 'truth_masks'"):
        chain.train(configured(chain, "weclip"), tmp_path)
    checkpoint = chain.train(weak, tmp_path)
    for refused in (
        lambda: chain.predict(configured(chain, "weclip"), checkpoint, tmp_path / "p.h5"),
        lambda: chain.apply(configured(chain, "weclip"), supervised, tmp_path / "s.h5"),
    ):  # the scores of an upper bound would need CAMs
        with pytest.raises(ArtifactError, match="was made without pixel labels"):
            refused()


def _imported(config: Config, checkpoint: Path) -> Config:
    refine = config.refine.model_copy(update={"checkpoint": str(checkpoint)})
    return config.model_copy(update={"refine": refine})


def _import(chain: Chain, config: Config, checkpoint: Path, folder: Path) -> None:
    arguments = STAGES["refine_import"].arguments(_imported(config, checkpoint))
    import_checkpoint(chain.manifest, None, folder / "c", chain.folder / "cache", **arguments)
