"""The encoder against open_clip's own forward pass."""

import pytest
import torch

from tests.clip.models import tiny_clip
from wsss.clip.encoder import ClipEncoder
from wsss.clip.errors import UnsupportedEncoderError


@pytest.mark.parametrize(("patch", "side"), [(8, 48), (14, 70), (16, 64), (32, 96)])
@pytest.mark.parametrize("quick_gelu", [True, False])
def test_tokens_equal_open_clip(patch: int, side: int, quick_gelu: bool) -> None:
    model = tiny_clip(patch=patch, side=side, quick_gelu=quick_gelu)
    images = torch.randn(2, 3, side, side)
    encoder = ClipEncoder(model.visual)
    encoding = encoder.run(images)
    model.visual.output_tokens = True
    pooled, tokens = model.visual(images)
    normed = encoder.normalize(encoding.tokens)
    projected = encoder.project(normed)
    torch.testing.assert_close(projected[:, 0], pooled, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(normed[:, 1:], tokens, rtol=1e-4, atol=1e-4)
    assert encoding.grid == (side // patch, side // patch)


def test_attention_of_a_block_equals_multihead_attention() -> None:
    model = tiny_clip()
    images = torch.randn(2, 3, 64, 64)
    encoder = ClipEncoder(model.visual)
    encoding = encoder.run(images, outputs_of=range(4), attention_of=range(4))
    for index, block in enumerate(model.visual.transformer.resblocks):
        before = encoder.embed(images)[0] if index == 0 else encoding.outputs[index - 1]
        normed = block.ln_1(before)
        _, expected = block.attn(normed, normed, normed, need_weights=True)
        torch.testing.assert_close(encoding.attention[index], expected, rtol=1e-4, atol=1e-5)


def test_sum_of_attention_is_the_sum_of_its_blocks() -> None:
    encoder = ClipEncoder(tiny_clip().visual)
    images = torch.randn(1, 3, 64, 80)
    apart = encoder.run(images, attention_of=[1, 2, 3])
    together = encoder.run(images, attention_sum_of=[1, 2, 3])
    expected = torch.stack(list(apart.attention.values())).sum(0)
    torch.testing.assert_close(together.attention_sum, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together.tokens, apart.tokens, rtol=1e-4, atol=1e-4)


def test_length_of_77_tokens_is_nothing_special() -> None:
    encoder = ClipEncoder(tiny_clip(patch=16).visual)
    images = torch.randn(1, 3, 64, 304)  # 4 x 19 patches and the class token: 77 tokens
    run = encoder.run(images, outputs_of=range(4))
    assert run.tokens.shape[1] == 77
    assert len(run.outputs) == 4
    assert not torch.allclose(run.outputs[2], run.outputs[3])


def test_side_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of the patch"):
        ClipEncoder(tiny_clip().visual).run(torch.randn(1, 3, 64, 70))


def test_towers_of_other_kinds_are_refused() -> None:
    with pytest.raises(UnsupportedEncoderError, match="is Linear; supported are ViTs"):
        ClipEncoder(torch.nn.Linear(2, 2))


def test_bfloat16_weights_stay_close() -> None:
    model = tiny_clip()
    images = torch.randn(1, 3, 64, 64)
    exact = ClipEncoder(model.visual).run(images).tokens
    rounded = ClipEncoder(tiny_clip().visual, precision="bfloat16").run(images).tokens
    assert rounded.dtype == torch.float32
    difference = (exact - rounded).norm() / exact.norm()
    assert 0 < difference < 0.05
