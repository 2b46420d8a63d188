"""Weights by name: loaded through torch.hub once, checked, and recorded."""

import hashlib
from pathlib import Path

import pytest
import torch

from tests.retrain.small_networks import NAMES
from wsss.artifacts.errors import ArtifactError
from wsss.config.retrain import RetrainConfig
from wsss.retrain.architecture import build_model, model_config
from wsss.retrain.weights.initial import init_path, load_backbone
from wsss.retrain.weights.pretrained import PRETRAINED, Pretrained, fetch, names_for


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MiT-B0 "on the net": the file behind the name mit-b0, and an empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    torch.manual_seed(4)
    model = build_model(model_config("segformer-b0", labels=2, crop=48))
    model.init_weights()
    plain = tmp_path / "plain.pth"
    torch.save(model.backbone.state_dict(), plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    path = plain.rename(tmp_path / f"mit_b0-{digest[:8]}.pth")
    monkeypatch.setitem(PRETRAINED, "mit-b0", Pretrained("segformer-b0", path.as_uri))
    return path


def test_named_weights_are_fetched_and_fit(published: Path) -> None:
    path = init_path("mit-b0", "segformer-b0")
    backbone = build_model(model_config("segformer-b0", labels=4, crop=48)).backbone
    load_backbone(backbone, path)
    for name, value in torch.load(published, weights_only=True).items():
        assert torch.equal(backbone.state_dict()[name], value)


def test_a_file_is_fetched_once(published: Path) -> None:
    first = fetch("mit-b0", "segformer-b0")
    assert first.parent == Path(torch.hub.get_dir()) / "checkpoints"
    published.unlink()
    assert fetch("mit-b0", "segformer-b0") == first


def test_damaged_weights_are_refused(published: Path) -> None:
    whole = published.read_bytes()
    published.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=r"mit-b0 cannot be downloaded from file:.*hash"):
        fetch("mit-b0", "segformer-b0")
    published.write_bytes(whole)
    cached = fetch("mit-b0", "segformer-b0")
    cached.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=rf"{cached.name}: its sha256 begins .* delete it"):
        fetch("mit-b0", "segformer-b0")


def test_without_a_network_the_error_names_a_remedy(published: Path) -> None:
    published.unlink()
    with pytest.raises(ArtifactError, match=r"cannot be downloaded .* put it at .*checkpoints"):
        fetch("mit-b0", "segformer-b0")
    assert not list(Path(torch.hub.get_dir()).rglob("*.pth"))


def test_names_of_other_networks_and_unknown_names_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"mit-b2 fits segformer-b2, .*-b0; expected random, mit-b0"
    ):
        init_path("mit-b2", "segformer-b0")
    with pytest.raises(ArtifactError, match=r"mit-b9 is no file; .* or mit-b0 or random"):
        init_path("mit-b9", "segformer-b0")
    with pytest.raises(ArtifactError, match=r"\.pth, \.params\) or random"):
        init_path("resnet38", "deeplabv1-resnet38")
    assert init_path("random", "segformer-b0") is None


def test_every_name_has_an_address_whose_file_says_how_its_digest_begins() -> None:
    for name, chosen in PRETRAINED.items():
        assert chosen.url().startswith("https://"), name
        assert len(chosen.beginning) == 8, name
        assert chosen.model in NAMES
    without_a_name = {name for name in NAMES if not names_for(name)}
    assert without_a_name == {"deeplabv1-resnet38", "deeplabv2-resnet38", "clip-vit"}
    description = RetrainConfig.model_fields["init"].description or ""
    assert {name for name in PRETRAINED if name not in description} <= {
        f"mit-b{n}" for n in range(1, 5)
    }
    assert Pretrained("a", lambda: "https://b/c.pth").beginning == ""
