"""Properties of every network: size, labels, loss, training, output, and export of its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from safetensors.torch import save_file
from torch import nn

from tests.retrain.small_networks import (
    CROP,
    KINDS,
    NAMES,
    clip_tower,
    facts,
    on_meta,
    parameters,
    small,
)
from wsss.config.model import Config
from wsss.retrain.architecture import model_config
from wsss.retrain.mm import BatchNorm
from wsss.retrain.optimisation import optimisation
from wsss.retrain.segmenter import Segmenter
from wsss.retrain.weights.initial import load_backbone

# Encoder parameters. Millions where a paper rounds: SegFormer, table 1; ResNet-50/101 as
# torchvision lists them, less the classifier (V1c: plus its stem); wide ResNet38: 105.07 M by the
# layers of model A1; DeiT-S as timm counts it, less the classifier, plus a larger positional table;
# ViT-B/16 as open_clip counts CLIP's, less last norm and projection, plus a larger table.
ENCODERS = {
    "segformer-b0": 3.4e6, "segformer-b1": 13.1e6, "segformer-b2": 24.2e6, "segformer-b3": 44.0e6,
    "segformer-b4": 60.8e6, "segformer-b5": 81.4e6,
    "deeplabv3plus-r50": 23_508_032 + 19_232, "deeplabv3plus-r101": 42_500_160 + 19_232,
    "deeplabv1-resnet38": 105_070_912, "deeplabv2-resnet38": 105_070_912,
    "deeplabv2-resnet101": 44_549_160 - 2_049_000,
    "segmenter-deit-s": 22_050_664 - 385_000 + (900 - 196) * 384,
    "clip-vit": 86_192_640 - 1_536 - 393_216 + (900 - 196) * 768,
}  # fmt: skip


def targets(*masks: torch.Tensor) -> list[SegDataSample]:
    samples = []
    for mask in masks:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=mask[None].long())
        samples.append(sample)
    return samples


@pytest.mark.parametrize("name", NAMES)
def test_encoders_have_the_published_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_meta(name, monkeypatch)
    rounded = name.startswith("segformer")
    expected = pytest.approx(ENCODERS[name], rel=0.03) if rounded else ENCODERS[name]
    assert parameters(model.backbone) == expected
    heads = [model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])]
    assert [head.out_channels for head in heads] == [21] * len(heads)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(kind: str) -> nn.Module:
    return small(kind).train()


def losses(model: nn.Module, inputs: torch.Tensor, *masks: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # the same dropout in every call
    values = model.loss(inputs, targets(*masks))
    return {name: value for name, value in values.items() if "loss" in name}


def test_loss_is_finite_and_ignores_255(model: nn.Module) -> None:
    inputs = torch.randn(2, 3, CROP, CROP)
    masks = torch.randint(0, 4, (2, CROP, CROP))
    model.eval()  # no dropout, and batch statistics do not matter here
    with torch.no_grad():
        logits = model._forward(inputs)
        assert logits.shape[:2] == (2, 4)
        corners = model.decode_head.align_corners
        logits = nn.functional.interpolate(
            logits, (CROP, CROP), mode="bilinear", align_corners=corners
        )
        half = masks.clone()
        half[:, :, 24:] = 255
        labelled = nn.functional.cross_entropy(logits[..., :24], masks[..., :24])
        loss = losses(model, inputs, *half)["decode.loss_ce"]
    assert torch.isfinite(loss)
    torch.testing.assert_close(loss, labelled)  # the mean over labelled pixels, not over all


def test_nothing_labelled_gives_zero_loss_and_finite_gradients(model: nn.Module) -> None:
    nothing = torch.full((CROP, CROP), 255)
    values = losses(model, torch.randn(2, 3, CROP, CROP), nothing, nothing)
    total = sum(values.values())
    assert total == 0
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def affine(model: nn.Module) -> set[str]:
    """Names of the scales and shifts of batch normalisation."""
    return {
        f"{path}.{part}"
        for path, module in model.named_modules()
        if isinstance(module, BatchNorm)
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize("mode", ["trained", "fixed_affine", "frozen"])
def test_a_step_changes_trained_parameters(
    kind: str, mode: Any, configure: Callable[..., Config]
) -> None:
    model = small(kind, batch_norm=mode).train()
    recipe = optimisation(configure(model=kind, lr=1.0).retrain)["optim_wrapper"]
    optimizer = build_optim_wrapper(model, recipe).optimizer
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    inputs, masks = torch.randn(2, 3, CROP, CROP), torch.randint(0, 4, (2, CROP, CROP))
    sum(losses(model, inputs, *masks).values()).backward()
    optimizer.step()

    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    names = {name for name, _ in model.named_parameters()}
    trained = names if mode == "trained" else names - affine(model)
    assert changed & names == trained
    assert all(
        model.get_parameter(name).grad.abs().max() > 0 for name in trained
    )  # not decay alone
    statistics = {name for name in after if name.endswith(("running_mean", "running_var"))}
    fixed = {name for name in statistics if name.startswith("backbone") and mode == "frozen"}
    assert changed & statistics == statistics - fixed


def test_learning_rates_follow_the_recipe(kind: str, configure: Callable[..., Config]) -> None:
    model = small(kind, batch_norm="fixed_affine")
    recipe = optimisation(configure(model=kind, lr=1e-3).retrain)["optim_wrapper"]
    groups = build_optim_wrapper(model, recipe).optimizer.param_groups
    rate = {
        id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    backbone, head, bias = {
        "segformer": (1, 10, 10), "deeplabv3plus": (1, 1, 1), "deeplabv1": (1, 10, 20),
        "deeplabv2": (1, 10, 20), "segmenter": (0.1, 1, 1), "clip": (0.1, 1, 1),
    }[kind.split("-")[0]]  # fmt: skip
    for name in trained:
        expected = backbone
        if not name.startswith("backbone"):
            expected = bias if name.endswith("bias") else head
        lr, decay = rate[id(model.get_parameter(name))]
        assert lr == pytest.approx(expected * 1e-3), name
        head_bias = name.startswith("decode_head") and name.endswith("bias")
        if kind.startswith("segmenter") or (kind.startswith("deeplabv2") and head_bias):
            assert decay == 0
        elif kind.startswith("deeplab"):
            assert decay == 5e-4


@pytest.mark.parametrize("size", [(48, 48), (61, 39), (20, 75)])
def test_probabilities_are_of_the_image_s_size(kind: str, size: tuple[int, int]) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    segmenter = Segmenter(small(kind), facts(kind, scales=(0.75, 1.0)), torch.device("cpu"))
    for probs in segmenter.probabilities(photos).values():
        assert probs.shape == (2, 4, *size)
        torch.testing.assert_close(probs.sum(dim=1), torch.ones(2, *size))


@pytest.mark.slow
def test_weights_go_out_and_come_back(kind: str, tmp_path: Path) -> None:
    source, target = small(kind), small(kind, seed=1)
    save_file(source.state_dict(), tmp_path / "whole.safetensors")
    load_backbone(target.backbone, tmp_path / "whole.safetensors")
    there = source.backbone.state_dict()
    for name, value in target.backbone.state_dict().items():
        torch.testing.assert_close(value, there[name], rtol=0, atol=0)
    same = [
        torch.equal(value, source.decode_head.state_dict()[name])
        for name, value in target.decode_head.named_parameters()
        if value.ndim > 1
    ]
    assert not any(same)


def test_auto_batch_norm_follows_the_recipe_with_weights(configure: Callable[..., Config]) -> None:
    expected = {
        "deeplabv1-resnet38": "fixed_affine", "deeplabv2-resnet38": "fixed_affine",
        "deeplabv2-resnet101": "frozen", "deeplabv3plus-r101": "trained",
    }  # fmt: skip
    for name, mode in expected.items():
        assert configure(model=name, init="file.pth").retrain.batch_norm == mode
        assert configure(model=name).retrain.batch_norm == "trained"
        explicit = configure(model=name, init="file.pth", batch_norm="trained").retrain
        assert explicit.batch_norm == "trained"


def test_unsuitable_crops_are_refused() -> None:
    with pytest.raises(ValueError, match=r"retrain\.crop is 16 pixels, expected at least 32"):
        model_config("segformer-b0", labels=3, crop=16)
    with pytest.raises(ValueError, match=r"crop is 70 pixels; .* multiple of its patch, 16, e\.g"):
        model_config("segmenter-deit-s", labels=3, crop=70)
    with pytest.raises(ValueError, match=r"crop is 70 pixels; clip-vit .* its patch, 8, e\.g\. 64"):
        model_config("clip-vit", labels=3, crop=70, clip=clip_tower())
