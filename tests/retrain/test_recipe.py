"""Optimisers and schedules are the stock ones, with our numbers in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmseg
import pytest
import torch
from mmengine.config import Config as MmConfig

from wsss.retrain.recipe import share_of_batch, training_config

STOCK = Path(mmseg.__file__).parent / ".mim" / "configs"


def build(config: Any, tmp_path: Path, devices: int = 1) -> MmConfig:
    return training_config(
        config,
        labels=("background", "cat"),
        manifest_dir=tmp_path,
        masks=[tmp_path / "m.h5"],
        work=tmp_path / "work",
        init=None,
        device=torch.device("cpu"),
        devices=devices,
    )


def test_segformer_recipe_is_stock(configure: Any, tmp_path: Path) -> None:
    stock = MmConfig.fromfile(STOCK / "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py")
    ours = build(configure(lr=6e-5, warmup=1500, iterations=160_000), tmp_path)
    assert ours.optim_wrapper == stock.optim_wrapper
    assert ours.param_scheduler == stock.param_scheduler


def test_deeplab_recipe_is_stock(configure: Any, tmp_path: Path) -> None:
    stock = MmConfig.fromfile(
        STOCK / "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py"
    )
    ours = build(
        configure(model="deeplabv3plus-r50", lr=0.01, warmup=0, iterations=20_000), tmp_path
    )
    assert ours.optim_wrapper.optimizer == stock.optim_wrapper.optimizer
    assert ours.param_scheduler == stock.param_scheduler


def test_config_survives_a_round_trip(configure: Any, tmp_path: Path) -> None:
    ours = build(configure(), tmp_path)
    ours.dump(tmp_path / "config.py")
    again = MmConfig.fromfile(tmp_path / "config.py")
    assert again.to_dict() == ours.to_dict()


def test_global_batch_is_shared_or_refused(configure: Any, tmp_path: Path) -> None:
    assert share_of_batch(configure(batch=8).retrain, 4) == 2
    with pytest.raises(ValueError, match=r"retrain\.batch is 8, which 3 devices cannot share"):
        share_of_batch(configure(batch=8).retrain, 3)
    with pytest.raises(ValueError, match=r"retrain\.batch is 1, but deeplabv3plus-r50"):
        share_of_batch(configure(batch=1, model="deeplabv3plus-r50").retrain, 1)
    norm = build(configure(batch=8), tmp_path, devices=2).model["decode_head"]["norm_cfg"]["type"]
    assert norm == "SyncBN"


def test_warm_up_longer_than_training_is_refused(configure: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"retrain\.warmup is 4 steps, but retrain\.iterations only 4"
    ):
        build(configure(warmup=4, iterations=4), tmp_path)
