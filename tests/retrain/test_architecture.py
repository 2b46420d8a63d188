"""The networks are those of the papers, with our labels and a loss that ignores 255."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from wsss.retrain.architecture import build_model, model_config

# Millions of encoder parameters: SegFormer, table 1; ResNet-50/101 as torchvision lists them, less
# the classifier, plus the deep stem of V1c.
ENCODERS = {
    "segformer-b0": 3.4, "segformer-b1": 13.1, "segformer-b2": 24.2, "segformer-b3": 44.0,
    "segformer-b4": 60.8, "segformer-b5": 81.4,
    "deeplabv3plus-r50": 23.5, "deeplabv3plus-r101": 42.5,
}  # fmt: skip
SMALL = ["segformer-b0", "deeplabv3plus-r50"]


def targets(*masks: torch.Tensor) -> list[SegDataSample]:
    samples = []
    for mask in masks:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=mask[None].long())
        samples.append(sample)
    return samples


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_the_published_size(name: str) -> None:
    model = build_model(model_config(name, labels=9, crop=64))
    millions = sum(p.numel() for p in model.backbone.parameters()) / 1e6
    assert millions == pytest.approx(ENCODERS[name], rel=0.03)
    heads = [model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])]
    assert [head.conv_seg.out_channels for head in heads] == [9] * len(heads)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    built = build_model(model_config(request.param, labels=4, crop=48))
    built.init_weights()
    return built.train()


def losses(model: nn.Module, inputs: torch.Tensor, *masks: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # the same dropout in every call
    found = model.loss(inputs, targets(*masks))
    return {name: value for name, value in found.items() if "loss" in name}


def test_loss_is_finite_and_ignores_255(model: nn.Module) -> None:
    inputs = torch.randn(2, 3, 48, 48)
    masks = torch.randint(0, 4, (2, 48, 48))
    model.eval()  # batch statistics do not matter here
    model.apply(
        lambda m: setattr(m, "p", 0.0) if isinstance(m, nn.Dropout | nn.Dropout2d) else None
    )
    with torch.no_grad():
        logits = model._forward(inputs)
        logits = nn.functional.interpolate(logits, (48, 48), mode="bilinear")
        half = masks.clone()
        half[:, :, 24:] = 255
        labelled = nn.functional.cross_entropy(logits[..., :24], masks[..., :24])
        found = losses(model, inputs, *half)["decode.loss_ce"]
    assert torch.isfinite(found)
    torch.testing.assert_close(found, labelled)  # the mean over labelled pixels, not over all


def test_nothing_labelled_gives_zero_loss_and_finite_gradients(model: nn.Module) -> None:
    nothing = torch.full((48, 48), 255)
    found = losses(model, torch.randn(2, 3, 48, 48), nothing, nothing)
    total = sum(found.values())
    assert total == 0
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_too_small_a_crop_is_refused() -> None:
    with pytest.raises(ValueError, match=r"retrain\.crop is 16 pixels, expected at least 32"):
        model_config("segformer-b0", labels=3, crop=16)
