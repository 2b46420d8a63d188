"""Weights under other names end in the right place: shown by what the networks compute."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.retrain.small_networks import on_meta, small
from tests.retrain.weights.mxnet_file import mxnet_names, written
from wsss.artifacts.errors import ArtifactError
from wsss.retrain.architecture import build_model, model_config
from wsss.retrain.weights.initial import load_backbone
from wsss.retrain.weights.naming import fit_positions, renamed


def backbone(name: str, *, crop: int = 48) -> nn.Module:
    return build_model(model_config(name, labels=4, crop=crop)).eval().backbone


def test_deit_computes_what_timm_s_computes(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("deit_small_patch16_224", img_size=(48, 48)).eval()
    for parameter in theirs.parameters():  # no bias is 0, no scale is 1
        nn.init.normal_(parameter, std=0.05)
    torch.save({"model": theirs.state_dict()}, tmp_path / "deit.pth")
    ours = backbone("segmenter-deit-s")
    load_backbone(ours, tmp_path / "deit.pth")
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = theirs.forward_features(images)[:, 1:]
        (actual,) = ours(images)
    torch.testing.assert_close(actual.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


def test_deit_s_positions_are_resized_to_the_crop_s_grid(tmp_path: Path) -> None:
    source, target = small("segmenter-deit-s", crop=64), small("segmenter-deit-s", crop=96)
    torch.save(source.backbone.state_dict(), tmp_path / "b.pth")
    load_backbone(target.backbone, tmp_path / "b.pth")
    images = torch.randn(1, 3, 96, 96)  # at which the source resizes positions itself
    with torch.no_grad():
        actual = target.eval().backbone(images)[0]
        torch.testing.assert_close(actual, source.eval().backbone(images)[0])


def test_positions_keep_the_class_token_and_smooth_tables() -> None:
    ramp = torch.arange(14.0).repeat(14, 1)
    table = torch.cat([torch.tensor([7.0]), ramp.flatten()])[None, :, None]
    actual = fit_positions(table, (30, 20))
    assert actual.shape == (1, 1 + 600, 1)
    assert actual[0, 0] == 7
    rows = actual[0, 1:, 0].view(30, 20)
    torch.testing.assert_close(rows, rows[:1].expand(30, -1))
    centres = (torch.arange(20.0) + 0.5) * 14 / 20 - 0.5
    torch.testing.assert_close(rows[0, 3:-3], centres[3:-3], rtol=0, atol=0.05)
    assert fit_positions(table, (14, 14)) is table


@pytest.mark.parametrize("shape", [(1, 198, 8), (1, 1, 8), (197, 8)])
def test_other_positional_tables_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArtifactError, match=r"deit\.pth: pos_embed is \(.*one class token"):
        fit_positions(torch.zeros(shape), (3, 3), "deit.pth: pos_embed")


def test_a_grid_of_as_many_patches_but_another_shape_gets_its_own_positions() -> None:
    model = small("segmenter-deit-s", crop=64).eval().backbone  # 4 x 4
    with torch.no_grad():
        model.pos_embed.normal_()
        x = torch.zeros(1, 17, 24)
        wide = model._pos_embeding(x, (2, 8), model.pos_embed)
    expected = fit_positions(model.pos_embed.detach(), (2, 8))
    torch.testing.assert_close(wide, expected)


def mit_as_its_authors_name_it(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of the conversion under test, written independently."""
    renamed = {}
    for name, value in state.items():
        stage, part, rest = re.fullmatch(r"layers\.(\d)\.(\d)\.(.*)", name).groups()
        stage = str(int(stage) + 1)
        rest = rest.replace("projection", "proj").replace("attn.attn.out_proj", "attn.proj")
        for theirs, ours in {"fc1": "0", "dwconv.dwconv": "1", "fc2": "4"}.items():
            rest = rest.replace(f"ffn.layers.{ours}.", f"mlp.{theirs}.")
        if "fc" in rest and rest.endswith("weight"):
            value = value.flatten(1)
        prefix = {"0": "patch_embed", "1": "block", "2": "norm"}[part] + stage
        if "in_proj_" in rest:
            width = len(value) // 3
            for key, cut in {"q": value[:width], "kv": value[width:]}.items():
                renamed[f"{prefix}.{rest.replace('attn.attn.in_proj_', f'attn.{key}.')}"] = cut
        else:
            renamed[f"{prefix}.{rest}"] = value
    return renamed


def test_mit_in_its_authors_naming_is_converted(tmp_path: Path) -> None:
    source, target = small("segformer-b2"), small("segformer-b2", seed=1)
    theirs = mit_as_its_authors_name_it(source.backbone.state_dict())
    assert theirs["block1.2.attn.kv.bias"].shape == (16,)
    assert theirs["block2.0.mlp.fc1.weight"].ndim == 2
    assert {"patch_embed3.proj.weight", "norm4.bias", "block1.0.mlp.dwconv.dwconv.bias"} <= set(
        theirs
    )
    torch.save(theirs | {"head.weight": torch.zeros(10, 64)}, tmp_path / "mit_b2.pth")
    load_backbone(target.backbone, tmp_path / "mit_b2.pth")
    for name, value in target.backbone.state_dict().items():
        torch.testing.assert_close(value, source.backbone.state_dict()[name], rtol=0, atol=0)


def test_mit_without_keys_and_values_is_refused(tmp_path: Path) -> None:
    theirs = mit_as_its_authors_name_it(small("segformer-b0").backbone.state_dict())
    del theirs["block1.0.attn.kv.weight"]
    torch.save(theirs, tmp_path / "mit.pth")
    with pytest.raises(ArtifactError, match=r"in_proj_weight as \(8, 8\), expected \(24, 8\)"):
        load_backbone(small("segformer-b0").backbone, tmp_path / "mit.pth")


def test_resnet101_fits_torchvision_s_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import resnet101

    ours = on_meta("deeplabv2-resnet101", monkeypatch).backbone.state_dict()
    with torch.device("meta"):
        theirs = resnet101().state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items() if not name.startswith("fc.")
    }


def deeplab_pytorch_names() -> dict[str, str]:
    """ResNet-101's modules in deeplab-pytorch by ours, written from its list of layers."""
    names = {"conv1": "layer1.conv1.conv", "bn1": "layer1.conv1.bn"}
    for stage, count in ((1, 3), (2, 4), (3, 23), (4, 3)):
        for index in range(count):
            ours, theirs = f"layer{stage}.{index}.", f"layer{stage + 1}.block{index + 1}."
            for number, layer in enumerate(("reduce", "conv3x3", "increase"), 1):
                names[f"{ours}conv{number}"] = f"{theirs}{layer}.conv"
                names[f"{ours}bn{number}"] = f"{theirs}{layer}.bn"
            if index == 0:
                names[f"{ours}downsample.0"] = f"{theirs}shortcut.conv"
                names[f"{ours}downsample.1"] = f"{theirs}shortcut.bn"
    return names


def test_resnet101_is_read_in_the_naming_of_deeplab_pytorch(tmp_path: Path) -> None:
    """As the file is laid out that AdvCAM's page offers for that code."""
    source, target = small("deeplabv2-resnet101"), small("deeplabv2-resnet101", seed=1)
    names, state = deeplab_pytorch_names(), source.backbone.state_dict()
    theirs = {"aspp.c0.weight": torch.zeros(4, 256, 3, 3)}
    for name, value in state.items():
        module, _, part = name.rpartition(".")
        theirs[f"{names[module]}.{part}"] = value
    torch.save(theirs, tmp_path / "imagenet.pth")
    load_backbone(target.backbone, tmp_path / "imagenet.pth")
    for name, value in target.backbone.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)

    del theirs["layer4.block23.increase.bn.weight"]
    whole = {f"module.base.{name}": value for name, value in theirs.items()}
    torch.save(whole, tmp_path / "whole.pth")
    with pytest.raises(ArtifactError, match=r"fits 519 of 520 .*lacks layer3\.22\.bn3\.weight"):
        load_backbone(target.backbone, tmp_path / "whole.pth")


def test_resnet38_is_read_from_mxnet_s_file(tmp_path: Path) -> None:
    source, target = small("deeplabv1-resnet38"), small("deeplabv2-resnet38", seed=1)
    state = source.backbone.state_dict()
    arrays = {theirs: state[ours].numpy() for ours, theirs in mxnet_names().items()}
    arrays |= {f"arg:linear1000_{part}": arrays["arg:bn7_beta"] for part in ("weight", "bias")}
    path = tmp_path / "resnet38.params"
    path.write_bytes(written(arrays, form=0))
    load_backbone(target.backbone, path)
    for name, value in target.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, state[name], rtol=0, atol=0)

    del arrays["arg:res4b5_branch2b1_weight"]
    path.write_bytes(written(arrays, form=0))
    with pytest.raises(ArtifactError, match=r"lacks b4_5\.conv_branch2b1\.weight"):
        load_backbone(target.backbone, path)
    with pytest.raises(ArtifactError, match=r"fits 0 of \d+ tensors of the backbone MixVision"):
        load_backbone(small("segformer-b0").backbone, path)


def test_resnet38_is_that_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_meta("deeplabv1-resnet38", monkeypatch).backbone
    weights = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    assert weights == set(mxnet_names())
    shapes = {
        "b2.conv_branch2a": (128, 64, 1), "b2_2.conv_branch2b1": (128, 128, 1),
        "b4.conv_branch2a": (512, 256, 1), "b5.conv_branch2a": (512, 512, 1),
        "b5.conv_branch2b1": (1024, 512, 2), "b5_2.conv_branch2a": (512, 1024, 2),
        "b6.conv_branch2b1": (1024, 512, 4), "b7.conv_branch2b1": (2048, 1024, 4),
        "b7.conv_branch2b2": (4096, 2048, 1), "b7.conv_branch1": (4096, 2048, 1),
    }  # fmt: skip
    for name, expected in shapes.items():
        layer = model.get_submodule(name)
        assert (layer.out_channels, layer.in_channels, layer.dilation[0]) == expected, name
    strided = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride[0] > 1}
    assert strided == {f"b{s}.conv_{b}" for s in (2, 3, 4) for b in ("branch1", "branch2a")}
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout2d)] == [0.3, 0.3, 0.5, 0.5]
    with torch.device("meta"):
        (features,) = model.eval()(torch.zeros(1, 3, 65, 80))
    assert features.shape == (1, 4096, 9, 10)


def test_unknown_naming_is_not_changed() -> None:
    tensors = {"stem.weight": torch.zeros(1)}
    assert renamed(tensors) == tensors
