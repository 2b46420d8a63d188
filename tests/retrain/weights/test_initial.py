"""A backbone is filled completely and safely, or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wsss.artifacts.errors import ArtifactError
from wsss.retrain.architecture import build_model, model_config
from wsss.retrain.weights.initial import init_path, load_backbone


def network(name: str = "segformer-b0", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = build_model(model_config(name, labels=4, crop=48))
    model.init_weights()
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    there = second.state_dict()
    return all(torch.equal(value, there[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("form", ["bare.pth", "whole.pth", "mmpretrain.pth", "bare.safetensors"])
def test_reads_the_usual_forms(tmp_path: Path, form: str) -> None:
    source, target = network(seed=0), network(seed=1)
    bare = dict(source.backbone.state_dict())
    path = tmp_path / form
    if form == "bare.safetensors":
        save_file(bare, path)
    elif form == "bare.pth":
        torch.save(bare | {"head.weight": torch.zeros(2)}, path)
    elif form == "whole.pth":
        torch.save({"state_dict": source.state_dict(), "meta": {"epoch": 1}}, path)
    else:
        named = {f"module.backbone.{name}": value for name, value in bare.items()}
        torch.save({"state_dict": named | {"module.head.fc.weight": torch.zeros(2)}}, path)
    head = {name: value.clone() for name, value in target.decode_head.state_dict().items()}
    assert not same(source.backbone, target.backbone)

    load_backbone(target.backbone, path)

    assert same(source.backbone, target.backbone)
    assert all(torch.equal(head[k], v) for k, v in target.decode_head.state_dict().items())


def test_another_architecture_is_refused_with_counts(tmp_path: Path) -> None:
    path = tmp_path / "b1.pth"
    torch.save(
        build_model(model_config("segformer-b1", labels=4, crop=48)).backbone.state_dict(), path
    )
    target = network().backbone
    with pytest.raises(ArtifactError, match=r"b1\.pth: fits \d+ of 1\d\d .* expected \(32,"):
        load_backbone(target, path)
    assert same(target, network().backbone)


def test_a_missing_stem_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "part.pth"
    model = network()
    tensors = dict(model.backbone.state_dict())
    first = next(iter(tensors))
    torch.save({name: value for name, value in tensors.items() if name != first}, path)
    with pytest.raises(ArtifactError, match=f"lacks {first}"):
        load_backbone(model.backbone, path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"retrain\.init: .*none\.pth is no file"):
        init_path(str(tmp_path / "none.pth"), "segformer-b0")


def test_paths_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pth").touch()
    monkeypatch.setenv("WSSS_SHARED", str(tmp_path))
    assert init_path("${WSSS_SHARED}/a.pth", "segformer-b0") == tmp_path / "a.pth"
