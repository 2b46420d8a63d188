"""Label smoothing: the loss of PyTorch, over labelled pixels."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.gpu.pretend import PretendGpu
from tests.retrain.small_networks import small_config
from wsss.retrain.losses import SmoothedCrossEntropy, accuracy
from wsss.retrain.mm import CrossEntropyLoss, decode_head


def batch(ignored: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 5, 6, generator=generator)
    labels = torch.randint(0, 4, (2, 5, 6), generator=generator)
    labels[torch.rand(2, 5, 6, generator=generator) < ignored] = 255
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignored", [0.0, 0.5])
def test_it_is_that_of_pytorch(smoothing: float, ignored: float) -> None:
    logits, labels = batch(ignored)
    ours = SmoothedCrossEntropy(label_smoothing=smoothing, avg_non_ignore=True)
    value = ours(logits, labels, ignore_index=255)
    expected = F.cross_entropy(logits, labels, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])


def test_without_a_labelled_pixel_it_is_zero() -> None:
    logits, labels = batch(1.0)
    ours = SmoothedCrossEntropy(label_smoothing=0.1, avg_non_ignore=True)
    value = ours(logits, labels, ignore_index=255)
    assert value.item() == 0
    assert not torch.autograd.grad(value, logits)[0].any()


@pytest.mark.parametrize("ignored", [0.0, 0.5, 1.0])
def test_loss_and_accuracy_are_those_of_mmsegmentation(ignored: float) -> None:
    """To the bit, and without the waits of those."""
    logits, labels = batch(ignored)
    ours, stock = (kind(avg_non_ignore=True) for kind in (SmoothedCrossEntropy, CrossEntropyLoss))
    given = {"ignore_index": 255}
    expected = (stock(logits, labels, **given), decode_head.accuracy(logits, labels, **given))
    assert torch.equal(ours(logits, labels, **given), expected[0])
    assert torch.equal(accuracy(logits, labels, **given), expected[1])
    with PretendGpu() as gpu:
        there = logits.detach().to("cuda"), labels.to("cuda")
        gpu.clear()
        actual = ours(*there, **given), accuracy(*there, **given)
        assert not gpu.waits.total()
        assert [value.cpu() for value in actual] == list(expected)


@pytest.mark.parametrize("name", ["segformer-b0", "deeplabv3plus-r50", "clip-vit"])
def test_every_head_smooths_its_targets(name: str) -> None:
    def losses(**options: Any) -> list[dict[str, Any]]:
        config = small_config(name, **options)
        heads = (config[part] for part in ("decode_head", "auxiliary_head") if config.get(part))
        return [head["loss_decode"] for head in heads]

    for head in losses(label_smoothing=0.1):
        assert (head["type"], head["label_smoothing"]) == ("SmoothedCrossEntropy", 0.1)
    for head in losses():
        assert (head["type"], head["label_smoothing"]) == ("SmoothedCrossEntropy", 0)
