"""Training is exact: twice the same, and the same after an interruption."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.config.model import Config
from wsss.retrain.runner import ProgressHook, resumable
from wsss.retrain.train import train

Configure = Callable[..., Config]


class Killed(BaseException):
    """Stands for a signal."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Interrupt training when a step begins."""
    before = ProgressHook.before_train_iter

    def set_step(step: int | None) -> None:
        def hook(self: ProgressHook, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if runner.iter == step:
                raise Killed
            before(self, runner, batch_idx, data_batch)

        monkeypatch.setattr(ProgressHook, "before_train_iter", hook)

    return set_step


def run(
    data: Any, config: Config, folder: Path, masks: list[Path] | None = None
) -> tuple[str, str]:
    """Train in a folder; digests of the weights and the text of the curve."""
    out, log = folder / "segmenter.safetensors", folder / "curve.csv"
    train(config, data.manifest_dir, masks or data.masks(), out, log, folder / "work")
    tensors, _ = load_checkpoint(out)
    content = b"".join(name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors))
    import hashlib

    return hashlib.sha256(content).hexdigest(), log.read_text()


@pytest.mark.slow
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    data: Any, configure: Configure, tmp_path: Path, kill_at: Any, caplog: Any
) -> None:
    config = configure(iterations=8, checkpoint_every=4, lr=1e-3)
    whole = run(data, config, tmp_path / "whole")

    kill_at(6)
    with pytest.raises(Killed):
        run(data, config, tmp_path / "cut")
    assert not (tmp_path / "cut" / "segmenter.safetensors").exists()
    assert not (tmp_path / "cut" / "curve.csv").exists()
    torch.manual_seed(123)
    np.random.seed(123)
    kill_at(None)
    # more workers, as on another machine
    again = configure(iterations=8, checkpoint_every=4, lr=1e-3, workers=2)
    with caplog.at_level(logging.INFO, logger="wsss"):
        resumed = run(data, again, tmp_path / "cut")

    assert "resuming after step 4 of 8" in caplog.text
    assert resumed == whole


@pytest.mark.slow
def test_weights_depend_on_the_seed_alone(data: Any, configure: Configure, tmp_path: Path) -> None:
    first = run(data, configure(), tmp_path / "1")
    torch.manual_seed(5)
    np.random.seed(5)
    assert run(data, configure(workers=2), tmp_path / "2", data.masks(parts=3)) == first
    assert run(data, configure(seed=1), tmp_path / "3")[0] != first[0]


@pytest.mark.slow
@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_outputs(warmup: int, data: Any, configure: Configure, tmp_path: Path, capfd: Any) -> None:
    capfd.readouterr()
    run(data, configure(iterations=5, warmup=warmup), tmp_path)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "retrain: 5/5" in shown.err
    assert len(shown.err.splitlines()) == 1

    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert list(rows[0])[:3] == ["step", "loss", "lr"]
    assert all(np.isfinite([float(value) for value in row.values()]).all() for row in rows)
    rates = [float(row["lr"]) for row in rows]
    assert max(rates) == 6e-4
    assert rates[-1] < 6e-4
    assert (rates[0] < 1e-6) == (warmup == 2)

    tensors, made_of = load_checkpoint(tmp_path / "segmenter.safetensors")
    assert tensors["decode_head.conv_seg.weight"].shape[0] == 4
    assert made_of.stage == "retrain"
    assert made_of.seed == 0
    assert set(made_of.inputs) == {"images", "classes", "masks"}


@pytest.mark.slow
def test_mmsegmentation_can_use_what_is_in_the_work_folder(
    data: Any, configure: Configure, tmp_path: Path
) -> None:
    from mmengine.config import Config as MmConfig
    from safetensors.torch import load_file

    from wsss.retrain.architecture import build_model

    run(data, configure(), tmp_path)
    model = build_model(MmConfig.fromfile(tmp_path / "work" / "config.py").model)
    model.load_state_dict(load_file(tmp_path / "segmenter.safetensors"))


@pytest.mark.slow
def test_state_of_another_task_is_ignored(
    data: Any, configure: Configure, tmp_path: Path, caplog: Any
) -> None:
    expected = run(data, configure(lr=1e-3), tmp_path / "new")
    run(data, configure(lr=5e-3), tmp_path / "old")
    shutil.copytree(tmp_path / "old" / "work", tmp_path / "mixed" / "work")
    with caplog.at_level(logging.INFO, logger="wsss"):
        assert run(data, configure(lr=1e-3), tmp_path / "mixed") == expected
    assert caplog.text.count("state of another configuration or other masks") == 1
    caplog.clear()
    other = data.masks(change=lambda mask: np.where(mask == 1, 255, mask).astype(np.uint8))
    with caplog.at_level(logging.INFO, logger="wsss"):
        assert run(data, configure(lr=1e-3), tmp_path / "mixed", other)[0] != expected[0]
    assert caplog.text.count("state of another configuration or other masks") == 1


@pytest.mark.slow
def test_a_finished_run_is_only_written_again(
    data: Any, configure: Configure, tmp_path: Path, kill_at: Any
) -> None:
    config = configure()
    first = run(data, config, tmp_path)
    (tmp_path / "segmenter.safetensors").unlink()
    (tmp_path / "curve.csv").unlink()
    kill_at(0)  # no step may begin
    assert run(data, config, tmp_path) == first


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped(
    data: Any, configure: Configure, tmp_path: Path, caplog: Any
) -> None:
    config = configure()
    first = run(data, config, tmp_path)
    newest, older = resumable(tmp_path / "work")
    assert (newest.name, older.name) == ("iter_4.pth", "iter_2.pth")
    newest.write_bytes(newest.read_bytes()[:5000])
    with caplog.at_level(logging.INFO, logger="wsss"):
        assert run(data, config, tmp_path) == first
    assert "iter_4.pth: is damaged" in caplog.text
    assert "resuming after step 2 of 4" in caplog.text


def test_starts_from_a_backbone(data: Any, configure: Configure, tmp_path: Path) -> None:
    from wsss.retrain.architecture import build_model, model_config

    torch.manual_seed(3)
    model = build_model(model_config("segformer-b0", labels=7, crop=48))
    model.init_weights()
    path = tmp_path / "init.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    run(data, configure(iterations=2, lr=1e-12, init=str(path)), tmp_path)
    tensors, made_of = load_checkpoint(tmp_path / "segmenter.safetensors")
    for name, value in model.backbone.named_parameters():
        torch.testing.assert_close(tensors[f"backbone.{name}"], value, rtol=0, atol=1e-6)
    assert made_of.weights == {"init": digest_file(path)}


@pytest.mark.slow
def test_masks_that_say_nothing_do_no_harm(data: Any, configure: Configure, tmp_path: Path) -> None:
    nothing = data.masks(change=lambda mask: np.full_like(mask, 255))
    _, curve = run(data, configure(), tmp_path, nothing)
    assert "nan" not in curve
    tensors, _ = load_checkpoint(tmp_path / "segmenter.safetensors")
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_errors_come_before_training(data: Any, configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"retrain\.init: .* is no file"):
        run(data, configure(init=str(tmp_path / "none.pth")), tmp_path)
    with pytest.raises(ArtifactError, match="holds 'scores', expected 'masks'"):
        run(data, configure(), tmp_path, data.masks(kind="scores"))
    with pytest.raises(
        FloatingPointError, match=r"the loss is nan at step \d of 4; lower retrain\.lr"
    ):
        run(data, configure(lr=1e30, warmup=0), tmp_path)
