"""Fusion and decoder: sizes, shapes, and what dropout does."""

import pytest
import torch

from wsss.refine.blocks.decoder import TransformerDecoder
from wsss.refine.blocks.fusion import FeatureFusion, feature_affinity
from wsss.refine.blocks.head import Head
from wsss.refine.weclip.options import WeClipOptions


def test_trainable_parameters_are_those_of_the_paper_s_head() -> None:
    fusion = FeatureFusion(11, 768, 256)
    assert sum(p.numel() for p in fusion.parameters()) == pytest.approx(3.610e6, rel=1e-3)
    for labels, total in ((21, 5.985e6), (81, 6.000e6)):
        decoder = TransformerDecoder(labels)
        count = sum(p.numel() for module in (fusion, decoder) for p in module.parameters())
        assert count == pytest.approx(total, rel=1e-3)


def test_each_block_has_its_own_mlp() -> None:
    torch.manual_seed(0)
    fusion = FeatureFusion(3, 8, 4).eval()
    features = torch.randn(3, 2, 6, 8)
    hidden = [
        torch.relu(features[k] @ fusion.first_weight[k] + fusion.first_bias[k])
        @ fusion.second_weight[k]
        + fusion.second_bias[k]
        for k in range(3)
    ]
    flat = torch.cat(hidden, dim=-1)  # (B, N, 3 * 4)
    expected = flat @ fusion.mix.weight[:, :, 0, 0].T + fusion.mix.bias
    fused = fusion(features, (2, 3))
    torch.testing.assert_close(fused.flatten(2).transpose(1, 2), expected)


def test_decoder_keeps_the_grid_and_reaches_every_patch() -> None:
    decoder = TransformerDecoder(5, 16, depth=2, heads=4)
    fused = torch.randn(1, 16, 3, 7, requires_grad=True)
    logits = decoder(fused)
    assert logits.shape == (1, 5, 3, 7)
    logits[0, 0, 0, 0].backward()
    assert (fused.grad[0].abs().sum(0) > 0).all()


def test_dropout_only_while_training() -> None:
    head = Head(2, 8, 3, WeClipOptions(width=64, dropout=0.5))
    features = torch.randn(2, 1, 4, 8)
    decoded = head.train()(features, (2, 2))
    dropped = (decoded.fused.abs().sum((2, 3)) == 0).float().mean()
    assert 0.2 < dropped < 0.8  # whole channels
    assert (decoded.clean.abs().sum((2, 3)) > 0).all()
    decoded = head.eval()(features, (2, 2))
    assert torch.equal(decoded.clean, decoded.fused)


def test_affinity_is_symmetric_and_in_range() -> None:
    affinity = feature_affinity(torch.randn(2, 8, 3, 3))
    torch.testing.assert_close(affinity, affinity.transpose(1, 2))
    assert 0 <= affinity.min() <= affinity.max() <= 1


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="no multiple of 3 heads"):
        TransformerDecoder(2, 16, heads=3)
