"""Training is exact: twice the same, and the same after an interruption."""

import csv
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import provenance, write_shard
from tests.retrain.conftest import build_config, make_data
from tests.retrain.small_networks import small
from tests.retrain.trainings import Killed, Result, run
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.checkpoint_header import checkpoint_provenance
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import progress_lines
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.compute.precision import computing
from wsss.config.model import Config
from wsss.data.images.label_png import voc_palette
from wsss.retrain.predict import run as predict
from wsss.retrain.runner import resumable
from wsss.retrain.segmenter import load_segmenter

Configure = Callable[..., Config]
pytestmark = pytest.mark.usefixtures("small_networks")


def states_of(work: Path) -> Path:
    """Where the one training of a work folder has its states."""
    (states,) = (path for path in work.iterdir() if path.is_dir())
    return states


@pytest.fixture(scope="module")
def trained(small_networks: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder and the result of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(make_data(folder / "set"), build_config(), folder)


@pytest.mark.slow
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    data: Any, configure: Configure, tmp_path: Path, trained: Any, kill_at: Any, caplog: Any
) -> None:
    kill_at(3)
    with pytest.raises(Killed):
        run(data, configure(), tmp_path)
    assert not (tmp_path / "segmenter.safetensors").exists()
    assert not (tmp_path / "curve.csv").exists()
    torch.manual_seed(123)
    np.random.seed(123)
    kill_at(None)
    with caplog.at_level(logging.INFO, logger="wsss"):
        resumed = run(data, configure(workers=2), tmp_path)  # as on another machine
    assert "resuming after step 2 of 4" in caplog.text
    assert resumed == trained[1]


@pytest.mark.slow
def test_in_bfloat16_it_stays_close(
    data: Any, configure: Configure, tmp_path: Path, trained: Any
) -> None:
    config = configure()
    rounded = config.model_copy(
        update={"compute": config.compute.model_copy(update={"precision": "bf16"})}
    )
    assert run(data, rounded, tmp_path)[1] != trained[1][1]
    losses = [
        float(next(csv.DictReader((folder / "curve.csv").open()))["loss"])
        for folder in (tmp_path, trained[0])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    checkpoint = trained[0] / "segmenter.safetensors"
    photo = np.random.default_rng(0).integers(0, 255, (1, 40, 56, 3), dtype=np.uint8)
    exact = load_segmenter(checkpoint, "cpu").probabilities(photo)["multi"]
    with computing("cpu", "bf16"):
        probs = load_segmenter(checkpoint, "cpu").probabilities(photo)["multi"]
    assert probs.dtype == torch.float32
    assert 0 < float((probs - exact).abs().max()) < 0.05


@pytest.mark.slow
def test_only_the_seed_matters(
    data: Any, configure: Configure, tmp_path: Path, trained: Any
) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    assert run(data, configure(workers=2), tmp_path / "1", data.masks(parts=3)) == trained[1]
    other = run(data, configure(seed=1, iterations=2), tmp_path / "2")[1]
    assert other.splitlines()[1] != trained[1][1].splitlines()[1]


@pytest.mark.slow
def test_outputs(data: Any, configure: Configure, tmp_path: Path, capfd: Any) -> None:
    capfd.readouterr()
    run(data, configure(iterations=5, warmup=2), tmp_path)
    shown = capfd.readouterr()
    assert shown.out == ""
    # a slow machine shows more steps than the last one
    lines = progress_lines(shown.err)
    assert lines[-1].description == "training the segmenter"
    assert (lines[-1].done, lines[-1].total) == (5, 5)
    assert len(shown.err.splitlines()) == len(lines)

    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert list(rows[0])[:3] == ["step", "loss", "lr"]
    assert all(np.isfinite([float(value) for value in row.values()]).all() for row in rows)
    rates = [float(row["lr"]) for row in rows]
    assert max(rates) == 6e-4
    assert rates[-1] < 6e-4
    assert rates[0] < 1e-6


def test_a_checkpoint_contains_everything_that_prediction_needs(data: Any, trained: Any) -> None:
    path = trained[0] / "segmenter.safetensors"
    tensors, provenance = load_checkpoint(path)
    assert tensors["decode_head.conv_seg.weight"].shape[0] == 4
    assert (provenance.stage, provenance.seed) == ("retrain", 0)
    assert set(provenance.inputs) == {"images", "classes", "masks", "manifest", "class_list"}
    segmenter = load_segmenter(path, "cpu")
    assert segmenter.facts.labels == ("background", "cat", "boat", "tree")
    assert segmenter.facts.palette == voc_palette()[:4]
    photo = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    probs = segmenter.probabilities(photo[None])["multi"]
    assert probs.shape == (1, 4, 30, 50)
    window = load_segmenter(path, "cpu", scales=(1.0,), window=32).facts
    assert (window.scales, window.window) == ((1.0,), 32)


def test_a_checkpoint_notes_how_its_run_predicts_and_does_not_depend_on_it(
    data: Any, configure: Configure, tmp_path: Path, trained: Any, kill_at: Any
) -> None:
    noted = {"scales": [0.5, 1.0], "average": "logits", "window": 64, "stride": 48}
    config = configure(predict=noted)
    stage = STAGES["retrain"]
    assert stage.watched(config) == stage.watched(configure())
    shutil.copytree(trained[0] / "work", tmp_path / "work")
    kill_at(0)  # no step may begin
    assert run(data, config, tmp_path) == trained[1]
    path = tmp_path / "segmenter.safetensors"
    facts = load_segmenter(path, "cpu").facts
    assert facts.model_dump(include=set(noted)) == noted | {"scales": (0.5, 1.0)}
    assert load_segmenter(trained[0] / "segmenter.safetensors", "cpu").facts.scales == (
        0.75, 1.0, 1.5,
    )  # fmt: skip
    keys = [checkpoint_provenance(p).key() for p in (path, trained[0] / "segmenter.safetensors")]
    assert keys[0] == keys[1]


def test_a_window_that_does_not_suit_the_network_is_refused_before_the_training(
    data: Any, configure: Configure, tmp_path: Path, kill_at: Any
) -> None:
    kill_at(0)
    with pytest.raises(ValueError, match=r"predict\.window is 8; expected at least 32"):
        run(data, configure(predict={"window": 8}), tmp_path)


def test_mmsegmentation_can_use_what_is_in_the_work_folder(trained: Any) -> None:
    from mmengine.config import Config as MmConfig
    from safetensors.torch import load_file

    from wsss.retrain.architecture import build_model

    folder = trained[0]
    model = build_model(MmConfig.fromfile(states_of(folder / "work") / "config.py").model)
    model.load_state_dict(load_file(folder / "segmenter.safetensors"))


@pytest.mark.slow
def test_state_of_another_training_is_left_and_taken_up_again(
    data: Any, configure: Configure, tmp_path: Path, trained: Any, kill_at: Any, caplog: Any
) -> None:
    shutil.copytree(trained[0] / "work", tmp_path / "work")
    masks = data.masks(change=lambda mask: np.where(mask == 1, 255, mask).astype(np.uint8))
    for changes in ({}, {"lr": 5e-3}):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="wsss"):
            assert run(data, configure(**changes), tmp_path, masks) != trained[1]
        assert caplog.text.count("holds states of other settings or inputs alone") == 1
    kill_at(0)  # no step may begin
    # Neither the number of shards nor how often states are saved is part of a training.
    again = data.masks(parts=3)
    assert run(data, configure(checkpoint_every=3), tmp_path, again) == trained[1]


@pytest.mark.slow
def test_a_finished_training_is_only_written_again(
    data: Any, configure: Configure, tmp_path: Path, trained: Any, kill_at: Any
) -> None:
    shutil.copytree(trained[0] / "work", tmp_path / "work")
    kill_at(0)  # no step may begin
    assert run(data, configure(), tmp_path) == trained[1]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped(
    data: Any, configure: Configure, tmp_path: Path, trained: Any, caplog: Any
) -> None:
    shutil.copytree(trained[0] / "work", tmp_path / "work")
    newest, older = resumable(states_of(tmp_path / "work"))
    assert (newest.name, older.name) == ("iter_4.pth", "iter_2.pth")
    newest.write_bytes(newest.read_bytes()[:5000])
    with caplog.at_level(logging.INFO, logger="wsss"):
        assert run(data, configure(), tmp_path) == trained[1]
    assert "iter_4.pth: is damaged" in caplog.text
    assert "resuming after step 2 of 4" in caplog.text


@pytest.mark.slow
def test_training_starts_from_a_backbone(data: Any, configure: Configure, tmp_path: Path) -> None:
    model = small("segformer-b0", seed=3, labels=7)
    path = tmp_path / "init.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    run(data, configure(iterations=2, lr=1e-12, init=str(path)), tmp_path)
    tensors, provenance = load_checkpoint(tmp_path / "segmenter.safetensors")
    for name, value in model.backbone.named_parameters():
        torch.testing.assert_close(tensors[f"backbone.{name}"], value, rtol=0, atol=1e-6)
    assert provenance.weights == {"init": digest_file(path)}


@pytest.mark.slow
def test_unlabelled_masks_are_harmless_and_said(
    data: Any, configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = data.masks(change=lambda mask: np.full_like(mask, 255))
    _, curve = run(data, configure(iterations=2), tmp_path, nothing)
    assert "no pixel of the masks is labelled" in caplog.text
    assert "lower masks.min_score" in caplog.text
    assert "nan" not in curve
    tensors, _ = load_checkpoint(tmp_path / "segmenter.safetensors")
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_errors_come_before_training(data: Any, configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"retrain\.init: .* is no file"):
        run(data, configure(init=str(tmp_path / "none.pth")), tmp_path)
    with pytest.raises(ArtifactError, match="holds 'scores', expected 'masks'"):
        run(data, configure(), tmp_path, data.masks(kind="scores"))
    with pytest.raises(FloatingPointError, match=r"loss is nan at step \d of 4; lower retrain\.lr"):
        run(data, configure(lr=1e30, warmup=0), tmp_path)


def test_weak_masks_and_the_truth_are_never_exchanged(
    data: Any, trained: Any, tmp_path: Path
) -> None:
    """Neither as masks to learn from, nor as weights to start from."""
    weak = build_config()
    upper = weak.model_copy(update={"supervision": "masks"})
    origin = provenance("truth_masks", config={"supervision": "masks"})
    items = [Item(s.id, {"train": data.truth[s.id]}) for s in data.samples if s.split == "train"]
    truth = write_shard(tmp_path / "truth.h5", "truth_masks", items, origin)
    with pytest.raises(ArtifactError, match=r"truth\.h5: was made with supervision: masks"):
        run(data, weak, tmp_path, [truth])
    with pytest.raises(ArtifactError, match="was made without pixel labels, and this run is fully"):
        run(data, upper, tmp_path)
    run(data, upper, tmp_path, [truth])
    checkpoint = tmp_path / "segmenter.safetensors"
    assert load_checkpoint(checkpoint)[1].supervision == "masks"
    from_upper = weak.retrain.model_copy(update={"init": str(checkpoint)})
    with pytest.raises(ArtifactError, match=r"segmenter\.safetensors: was made with supervision"):
        run(data, weak.model_copy(update={"retrain": from_upper}), tmp_path / "weak")
    arguments = STAGES["predict"].arguments(weak)
    with pytest.raises(ArtifactError, match=r"segmenter\.safetensors: was made with supervision"):
        predict(data.manifest_dir, "val", (1, 1), checkpoint, tmp_path / "p.h5", **arguments)
