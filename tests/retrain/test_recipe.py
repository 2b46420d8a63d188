"""Optimisers and schedules are the stock ones, with our numbers in them."""

from pathlib import Path
from typing import Any

import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config as MmConfig

from tests.retrain.small_networks import clip_tower
from wsss.retrain.recipe import share_of_batch, training_config
from wsss.retrain.transforms import HsvJitter, RandomOwnScale, shift_hsv

STOCK = Path(mmseg.__file__).parent / ".mim" / "configs"


def build(config: Any, tmp_path: Path, devices: int = 1, device: str = "cpu") -> MmConfig:
    return training_config(
        config.retrain,
        seed=config.seed,
        max_pixels=config.data.max_pixels,
        workers=config.compute.workers,
        labels=("background", "cat"),
        manifest_dir=tmp_path,
        masks=[tmp_path / "m.h5"],
        work=tmp_path / "work",
        init=None,
        clip=clip_tower(),
        device=torch.device(device),
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


def test_segmenter_and_the_papers_deeplabs_decay_to_zero(configure: Any, tmp_path: Path) -> None:
    for model in ("deeplabv1-resnet38", "deeplabv2-resnet101", "segmenter-deit-s"):
        ours = build(configure(model=model, lr=0.005, warmup=0, iterations=40_000), tmp_path)
        (schedule,) = ours.param_scheduler
        expected = {"type": "PolyLR", "by_epoch": False, "begin": 0, "end": 40_000}
        assert schedule == expected | {"power": 0.9, "eta_min": 0.0}
        optimizer = ours.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.momentum, optimizer.lr) == ("SGD", 0.9, 0.005)
        assert optimizer.weight_decay == (0 if model.startswith("segmenter") else 5e-4)


def test_the_papers_networks_are_configured_as_published(configure: Any, tmp_path: Path) -> None:
    first = build(configure(model="deeplabv1-resnet38", init=__file__), tmp_path).model
    assert first.backbone.norm_cfg == {"type": "BN", "requires_grad": False, "momentum": 3e-4}
    assert first.decode_head.norm_cfg == first.backbone.norm_cfg
    assert first.decode_head.align_corners
    assert "auxiliary_head" not in first
    second = build(configure(model="deeplabv2-resnet101", init=__file__), tmp_path).model
    assert second.backbone.norm_eval
    assert (second.backbone.type, second.backbone.strides) == ("ResNet", (1, 2, 1, 1))
    assert (second.backbone.dilations, second.backbone.contract_dilation) == ((1, 1, 2, 4), False)
    third = build(configure(model="segmenter-deit-s"), tmp_path).model
    assert third.backbone.drop_path_rate == 0.1
    assert (third.decode_head.num_layers, third.decode_head.drop_rate) == (2, 0.1)
    assert third.data_preprocessor.mean == [123.675, 116.28, 103.53]


def test_clip_vit_sees_images_as_its_clip_does(configure: Any, tmp_path: Path) -> None:
    ours = build(configure(model="clip-vit", init="clip", lr=2e-4), tmp_path)
    assert ours.model.data_preprocessor.mean == pytest.approx([127.5, 102, 76.5])
    assert ours.model.data_preprocessor.std == pytest.approx([51, 63.75, 76.5])
    assert ours.model.data_preprocessor.bgr_to_rgb
    assert (ours.optim_wrapper.optimizer.type, ours.optim_wrapper.optimizer.lr) == ("AdamW", 2e-4)
    assert not ours.model.backbone.frozen
    assert build(configure(model="clip-vit", clip_lr=0.0), tmp_path).model.backbone.frozen
    assert ours.model.decode_head.has_stem
    plain = build(configure(model="clip-vit", clip_stem=False, label_smoothing=0.1), tmp_path)
    assert not plain.model.decode_head.has_stem
    assert plain.model.decode_head.loss_decode.label_smoothing == 0.1
    assert (ours.param_scheduler[-1].power, ours.param_scheduler[-1].eta_min) == (1.0, 0.0)


def test_augmentation_follows_its_keys(configure: Any, tmp_path: Path) -> None:
    def pipeline(**keys: Any) -> dict[str, Any]:
        steps = build(configure(**keys), tmp_path).train_dataloader.dataset.pipeline
        return {step["type"]: step for step in steps}

    plain = pipeline(color="none", cat_max_ratio=1.0, short_side=520, scale_range=[0.5, 2.0])
    assert "PhotoMetricDistortion" not in plain
    assert plain["RandomCrop"].cat_max_ratio == 1.0
    assert plain["RandomOwnScale"].short_side == 520
    assert pipeline(color="hsv")["HsvJitter"].reach == 10
    assert "PhotoMetricDistortion" in pipeline()


def test_scale_is_relative_to_the_short_side() -> None:
    sample = {"img": np.zeros((30, 40, 3), np.uint8), "gt_seg_map": np.zeros((30, 40), np.uint8)}
    scaled = RandomOwnScale((0.5, 0.5), short_side=60).transform(dict(sample))
    assert scaled["img"].shape[:2] == scaled["gt_seg_map"].shape == (30, 40)
    assert RandomOwnScale((0.5, 0.5)).transform(dict(sample))["img"].shape[:2] == (15, 20)


def test_scale_is_drawn_from_a_list(configure: Any, tmp_path: Path) -> None:
    keys = {"scale_choices": [0.5, 2.0], "scale_filter": "bicubic"}
    steps = build(configure(**keys), tmp_path).train_dataloader.dataset.pipeline
    (options,) = (dict(step) for step in steps if step["type"] == "RandomOwnScale")
    del options["type"]
    ramp = np.zeros((8, 8, 3), np.uint8)
    ramp[:, 4:] = 200
    sample = {"img": ramp, "gt_seg_map": ramp[..., 0]}
    np.random.seed(0)
    scaled = [RandomOwnScale(**options).transform(dict(sample)) for _ in range(20)]
    assert {s["img"].shape[0] for s in scaled} == {4, 16}
    larger = next(s for s in scaled if s["img"].shape[0] == 16)
    assert larger["img"].max() > 200  # a cubic filter overshoots
    assert set(np.unique(larger["gt_seg_map"])) == {0, 200}


def test_hsv_is_shifted_and_hue_wraps_around() -> None:
    red = np.array([[[20, 20, 200]]], np.uint8)
    back = shift_hsv(shift_hsv(red, np.array([-10, 0, 0])), np.array([10, 0, 0]))
    np.testing.assert_allclose(back.astype(int), red, atol=2)
    (pixel,) = shift_hsv(red, np.array([10, 0, 0]))[0]
    assert pixel[2] == pixel.max() == 200  # towards orange
    assert pixel[1] > pixel[0] + 30
    assert shift_hsv(red, np.array([0, 0, 100])).max() == 255
    np.random.seed(0)
    seen = [HsvJitter(10).transform({"img": red})["img"].tolist() for _ in range(20)]
    assert len({str(value) for value in seen}) > 10


def test_config_survives_a_round_trip(configure: Any, tmp_path: Path) -> None:
    ours = build(configure(), tmp_path)
    ours.dump(tmp_path / "config.py")
    again = MmConfig.fromfile(tmp_path / "config.py")
    assert again.to_dict() == ours.to_dict()


def test_global_batch_is_shared_or_refused(configure: Any, tmp_path: Path) -> None:
    assert share_of_batch(configure(batch=8).retrain, 4) == 2
    with pytest.raises(ValueError, match=r"retrain\.batch is 8, which 3 devices cannot share"):
        share_of_batch(configure(batch=8).retrain, 3)
    for device, name in (("cuda", "SyncBN"), ("cpu", "SharedBN")):  # torch's needs a GPU
        head = build(configure(batch=8), tmp_path, 2, device).model["decode_head"]
        assert head["norm_cfg"]["type"] == name
