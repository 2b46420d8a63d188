"""DINOv2's forward pass against timm's and Hugging Face's, its positional table, its grid."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from tests.dino.models import TINY
from wsss._compat import import_timm
from wsss.clip.images import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from wsss.compute.precision import computing
from wsss.dino.encoder import DinoEncoder
from wsss.dino.load import load_dino
from wsss.dino.model_config import MODELS, build
from wsss.dino.position import resize_positions

SIZES = {"embed_dim": 32, "depth": 3, "num_heads": 4, "img_size": 112}
NATIVE = 112


def tiny(folder: Path, registers: int = 0) -> tuple[nn.Module, DinoEncoder]:
    """timm's model, and ours with its weights; both with a large variance."""
    file = folder / f"sizes-{registers}.json"
    file.write_text(json.dumps(SIZES | {"reg_tokens": registers}))
    model, digest = load_dino(str(file), "random")
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.normal_(0, 0.3)
    return model, DinoEncoder(model, digest=digest)


@pytest.mark.parametrize("registers", [0, 4])
def test_at_its_own_size_it_is_timm_s(tmp_path: Path, registers: int) -> None:
    model, encoder = tiny(tmp_path, registers)
    images = torch.randn(2, 3, NATIVE, NATIVE)
    with torch.no_grad():
        expected = model.forward_features(images)[:, 1 + registers :]  # type: ignore[operator]
        blocks = model.forward_intermediates(  # type: ignore[operator]
            images, output_fmt="NLC", intermediates_only=True, norm=False
        )
    features = encoder.encode(images, outputs_of=(0, 2))
    assert features.grid == encoder.native_grid == (8, 8)
    assert encoder.registers == registers
    torch.testing.assert_close(features.tokens, expected, rtol=1e-4, atol=1e-5)
    assert set(features.outputs) == {0, 2}
    for index, tokens in features.outputs.items():
        torch.testing.assert_close(tokens, blocks[index], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("registers", [0, 4])
def test_weights_of_hugging_face_and_of_the_release(tmp_path: Path, registers: int) -> None:
    """One model's tensors under the names of transformers' files, and of the release's."""
    transformers = pytest.importorskip("transformers")
    kinds = {
        0: (transformers.Dinov2Config, transformers.Dinov2Model),
        4: (transformers.Dinov2WithRegistersConfig, transformers.Dinov2WithRegistersModel),
    }
    config, kind = kinds[registers]
    more: dict[str, Any] = {"num_register_tokens": registers} if registers else {}
    torch.manual_seed(0)
    theirs = kind(
        config(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=4, image_size=NATIVE,
            patch_size=14, layerscale_value=0.5, **more,
        )
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    sizes = tmp_path / "sizes.json"
    sizes.write_text(json.dumps(SIZES | {"reg_tokens": registers}))
    images = torch.randn(2, 3, NATIVE, NATIVE)
    with torch.no_grad():
        expected = theirs(images).last_hidden_state[:, 1 + registers :]
    theirs.save_pretrained(tmp_path / "hub")  # names in files are not those of modules
    state = load_file(tmp_path / "hub/model.safetensors")
    digests = set()
    for name, tensors in (("hf", state), ("release", _as_released(state))):
        file = tmp_path / f"{name}.safetensors"
        save_file({n: t.clone() for n, t in tensors.items()}, file)
        model, digest = load_dino(str(sizes), str(file))
        digests.add(digest)
        actual = DinoEncoder(model, digest=digest).encode(images).tokens
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert len(digests) == 1


def _as_released(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The release's names, written out by hand."""
    named = {
        "cls_token": state["embeddings.cls_token"],
        "mask_token": state["embeddings.mask_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "norm.weight": state["layernorm.weight"],
        "norm.bias": state["layernorm.bias"],
    }
    if "embeddings.register_tokens" in state:
        named["register_tokens"] = state["embeddings.register_tokens"]
    for part in ("weight", "bias"):
        named[f"patch_embed.proj.{part}"] = state[f"embeddings.patch_embeddings.projection.{part}"]
    for block in range(3):
        theirs, ours = f"encoder.layer.{block}.", f"blocks.{block}."
        for part in ("weight", "bias"):
            attention = [
                state[f"{theirs}attention.attention.{name}.{part}"]
                for name in ("query", "key", "value")
            ]
            named[f"{ours}attn.qkv.{part}"] = torch.cat(attention)
            named[f"{ours}attn.proj.{part}"] = state[f"{theirs}attention.output.dense.{part}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                named[f"{ours}{name}.{part}"] = state[f"{theirs}{name}.{part}"]
        for number in (1, 2):
            scale = state[f"{theirs}layer_scale{number}.lambda1"]
            named[f"{ours}ls{number}.gamma"] = scale
    return named


def test_the_table_is_unchanged_at_its_own_size() -> None:
    """At 518 pixels."""
    table = torch.randn(37 * 37, 8)
    for registers in (False, True):
        same = resize_positions(table, (37, 37), (37, 37), registers=registers)
        assert torch.equal(same, table)


@pytest.mark.parametrize("grid", [(22, 22), (20, 31), (40, 12)])
def test_the_table_is_resized_by_a_factor_or_with_registers_to_a_size(
    grid: tuple[int, int],
) -> None:
    """22 x 22 patches are 308 pixels: the factor is 22.1 / 37."""
    table = torch.randn(37 * 37, 8)
    image = table.T.reshape(1, 8, 37, 37)
    plain = resize_positions(table, (37, 37), grid, registers=False)
    weights = [_bicubic(37, new, (new + 0.1) / 37) for new in grid]
    expected = torch.einsum("ab,cd,nbd->nac", *weights, image[0].double())
    torch.testing.assert_close(plain.T.view(8, *grid), expected.float(), rtol=1e-4, atol=1e-4)
    registers = resize_positions(table, (37, 37), grid, registers=True)
    sized = F.interpolate(image, size=grid, mode="bicubic", antialias=True)
    torch.testing.assert_close(registers.T.view(1, 8, *grid), sized)
    assert not torch.allclose(plain, registers, atol=0.1)


def _bicubic(old: int, new: int, factor: float) -> torch.Tensor:
    """Cubic convolution (a = -0.75) at steps of one over the factor, the border repeated."""
    rows = torch.zeros(new, old, dtype=torch.float64)
    for index in range(new):
        coordinate = (index + 0.5) / factor - 0.5
        first = int(torch.tensor(coordinate).floor())
        for neighbour in range(first - 1, first + 3):
            distance = abs(coordinate - neighbour)
            if distance <= 1:
                weight = 1.25 * distance**3 - 2.25 * distance**2 + 1
            else:
                weight = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
            rows[index, min(max(neighbour, 0), old - 1)] += weight
    return rows


def test_images_of_any_size_become_whole_patches(tmp_path: Path) -> None:
    _, encoder = tiny(tmp_path)
    images = torch.randn(1, 3, 97, 70)
    resized = F.interpolate(images, size=(84, 70), mode="bilinear", align_corners=False)
    assert torch.equal(encoder.whole_patches(images), resized)
    features = encoder.encode(images)
    assert features.grid == (6, 5)
    assert torch.equal(features.tokens, encoder.encode(resized).tokens)
    with pytest.raises(ValueError, match="13 x 70 pixels: is smaller than a patch of DINOv2"):
        encoder.encode(torch.zeros(1, 3, 13, 70))
    with pytest.raises(ValueError, match=r"blocks \[3\]: DINOv2 here has 3, numbered from 0"):
        encoder.encode(images, outputs_of=(3,))


def test_an_image_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    _, encoder = tiny(tmp_path)
    images = torch.randn(3, 3, 70, 70)
    whole = encoder.encode(images).tokens
    alone = encoder.encode(images[1:2]).tokens
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-5, atol=1e-5)


def test_another_normalisation_is_converted(tmp_path: Path) -> None:
    _, encoder = tiny(tmp_path)
    colours = torch.rand(2, 3, 28, 28)

    def normalized(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (colours - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    own = normalized(IMAGENET_MEAN, IMAGENET_STD)
    assert encoder.renormalized(own, IMAGENET_MEAN, IMAGENET_STD) is own
    converted = encoder.renormalized(normalized(CLIP_MEAN, CLIP_STD), CLIP_MEAN, CLIP_STD)
    torch.testing.assert_close(converted, own, rtol=1e-5, atol=1e-5)


def test_bfloat16_weights_stay_close(tmp_path: Path) -> None:
    model, encoder = tiny(tmp_path)
    images = torch.randn(1, 3, 70, 70)
    rounded = DinoEncoder(model, digest="", precision="bfloat16")
    exact, near = encoder.encode(images).tokens, rounded.encode(images).tokens
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert (near - exact).norm() < 0.05 * exact.norm()


def test_it_needs_no_gradient_and_stays_as_it_is(tmp_path: Path) -> None:
    model, encoder = tiny(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not model.training
    with computing("cpu", "float32"):
        tokens = encoder.encode(torch.randn(1, 3, 70, 70, requires_grad=True)).tokens
    assert not tokens.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_sizes_of_the_models() -> None:
    """Parameters in millions, as DINOv2's paper rounds them: S 21, B 86, L 300."""
    millions = {"small": 22.06, "base": 86.58, "large": 304.37}
    timm = import_timm()
    for name in MODELS:
        with torch.device("meta"):
            outline = timm.create_model(name, num_classes=0)
        size = name.split("_")[1]
        count = sum(parameter.numel() for parameter in outline.parameters()) / 1e6
        assert count == pytest.approx(millions[size], abs=0.01)
        assert outline.patch_embed.grid_size == (37, 37)
        assert all(block.ls1.gamma.numel() for block in outline.blocks)
        assert outline.norm.eps == 1e-6


def test_the_start_is_the_same_every_time() -> None:
    first, second = (build(str(TINY)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
