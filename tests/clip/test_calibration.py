"""The second stream (SVC) against arithmetic written out; equations of docs/methods/excel.md."""

import pytest
import torch

from tests.clip.models import tiny_clip
from wsss.clip.attention import Heads
from wsss.clip.calibration import Calibration
from wsss.clip.encoder import ClipEncoder
from wsss.clip.self_attention import HeadUse, Relation, SelfAttention

RELATIONS: dict[Relation, tuple[str, ...]] = {
    "qq_kk_vv": ("queries", "keys", "values"),
    "qq_kk": ("queries", "keys"),
    "vv": ("values",),
}


@pytest.fixture
def encoder() -> ClipEncoder:
    return ClipEncoder(tiny_clip().visual)


def _matrices(heads: Heads, relation: Relation) -> torch.Tensor:
    """Of every head: (B, H, L, L)."""
    if relation == "identity":
        batch, count, tokens, _ = heads.values.shape
        return torch.eye(tokens).expand(batch, count, -1, -1)
    parts = [getattr(heads, name) for name in RELATIONS[relation]]
    each = [torch.softmax(part @ part.transpose(-2, -1) * heads.scale, -1) for part in parts]
    return torch.stack(each).mean(0)


@pytest.mark.parametrize("relation", [*RELATIONS, "identity"])
@pytest.mark.parametrize("use", ["sum", "mean", "each"])
def test_overrides_equal_their_definition(relation: Relation, use: HeadUse) -> None:
    torch.manual_seed(0)
    heads = Heads(*(torch.randn(2, 3, 7, 4) for _ in range(3)))
    matrix = _matrices(heads, relation)
    if use != "each":
        matrix = getattr(matrix, use)(1, keepdim=True)
    attended, mean = SelfAttention(relation, use)(heads)
    torch.testing.assert_close(attended, matrix @ heads.values)
    torch.testing.assert_close(mean, _matrices(heads, relation).mean(1))
    torch.testing.assert_close(mean.sum(-1), torch.ones(2, 7))


def test_stream_is_the_closed_form(encoder: ClipEncoder) -> None:
    """P_s = x + sum over the blocks of (G V W^T + b): no MLP, no second attention (eq. 6)."""
    images = torch.randn(2, 3, 64, 80)
    calibration = Calibration(SelfAttention(), 1)
    run = encoder.run(images, outputs_of=range(4), calibration=calibration)
    expected = run.outputs[0].clone()
    for index in range(1, 4):
        block = encoder.blocks[index]
        heads = block.split_heads(block.norm1(run.outputs[index - 1]))
        total = _matrices(heads, "qq_kk_vv").sum(1, keepdim=True)
        attended = (total @ heads.values).transpose(1, 2).flatten(2)
        expected += attended @ block.out_proj.weight.T + block.out_proj.bias
    actual = calibration.stream(run.tokens)
    torch.testing.assert_close(actual[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actual[:, 0], run.tokens[:, 0])


@pytest.mark.parametrize("use", ["sum", "mean", "each"])
def test_shift_of_the_attention_needs_no_second_pass(encoder: ClipEncoder, use: HeadUse) -> None:
    """P_d = P_s + gain E U equals a pass in which E is added to every head's matrix (eq. 18)."""
    images = torch.randn(2, 3, 64, 64)
    override = SelfAttention("qq_kk_vv", use)
    patches = 16
    shift = torch.softmax(torch.randn(2, patches, patches), -1)
    padded = torch.zeros(2, 1 + patches, 1 + patches)
    padded[:, 1:, 1:] = shift

    class Shifted:
        def __call__(self, heads: Heads) -> tuple[torch.Tensor, torch.Tensor]:
            attended, mean = override(heads)
            return attended + override.gain(3) * padded.unsqueeze(1) @ heads.values, mean

    static, second = Calibration(override, 1, value_updates=True), Calibration(Shifted(), 1)
    run = encoder.run(images, calibration=static)
    encoder.run(images, calibration=second)
    actual = static.stream(run.tokens)[:, 1:] + override.gain(3) * shift @ static.value_updates
    torch.testing.assert_close(actual, second.stream(run.tokens)[:, 1:], rtol=1e-5, atol=1e-5)


def test_calibration_does_not_change_the_encoder(encoder: ClipEncoder) -> None:
    images = torch.randn(1, 3, 64, 64)
    plain = encoder.run(images, outputs_of=range(4))
    calibration = encoder.run(
        images, outputs_of=range(4), calibration=Calibration(SelfAttention(), 2)
    )
    for index in range(4):
        assert torch.equal(plain.outputs[index], calibration.outputs[index])


@pytest.mark.parametrize("attention", [(), (2, 3)])
def test_last_block_for_the_class_token(encoder: ClipEncoder, attention: tuple[int, ...]) -> None:
    images = torch.randn(2, 3, 64, 64)
    whole = encoder.run(images, attention_sum_of=attention)
    short = encoder.run(images, attention_sum_of=attention, class_token_last=True)
    assert short.tokens.shape[1] == 1
    torch.testing.assert_close(short.tokens, whole.tokens[:, :1], rtol=1e-4, atol=1e-4)
    if attention:
        torch.testing.assert_close(short.attention_sum, whole.attention_sum)


def test_post_attention_is_the_stream_before_the_mlp(encoder: ClipEncoder) -> None:
    run = encoder.run(torch.randn(1, 3, 64, 64), outputs_of=[2], post_attention_of=[2])
    torch.testing.assert_close(encoder.blocks[2].add_mlp(run.post_attention[2]), run.outputs[2])


def test_missing_results_are_errors(encoder: ClipEncoder) -> None:
    calibration = Calibration(SelfAttention(), 3)
    run = encoder.run(torch.randn(1, 3, 64, 64), until=3, calibration=calibration)
    with pytest.raises(ValueError, match="did not run block 3"):
        calibration.stream(run.tokens)
    with pytest.raises(ValueError, match="with value_updates"):
        _ = calibration.value_updates
