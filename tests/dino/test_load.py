"""DINOv2 by name and by file: what is refused, what is offline, what the digest covers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.dino.models import SECTION, TINY
from wsss.clip.downloads import TagWeights
from wsss.config.clip import DinoConfig
from wsss.dino import downloads
from wsss.dino.downloads import tag_weights
from wsss.dino.errors import DinoLoadError
from wsss.dino.load import configured, load_dino


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A weight file that fits the tiny model."""
    model, _ = load_dino(str(TINY), "random")
    file = tmp_path / "w.safetensors"
    save_file(model.state_dict(), file)
    return file


def test_the_section_gives_an_encoder(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    random = configured(DinoConfig(**SECTION), device="cpu")
    assert f"dino.pretrained is random: {SECTION['model']} is not trained" in caplog.text
    caplog.clear()
    same = configured(DinoConfig(model=str(TINY), pretrained=str(weights)), device="cpu")
    assert not caplog.text
    assert (random.width, random.depth, random.patch) == (32, 2, (14, 14))
    assert random.digest == same.digest
    images = torch.randn(1, 3, 56, 56)
    assert torch.equal(random.encode(images).tokens, same.encode(images).tokens)


def test_the_digest_covers_weights_and_heads(tmp_path: Path, weights: Path) -> None:
    sizes = json.loads(TINY.read_text())
    heads = tmp_path / "heads.json"
    heads.write_text(json.dumps(sizes | {"num_heads": 4}))
    model, first = load_dino(str(TINY), str(weights))
    digests = {first, load_dino(str(heads), str(weights))[1]}
    other = tmp_path / "other.safetensors"
    state = model.state_dict()
    save_file(state | {"norm.bias": state["norm.bias"] + 1}, other)
    digests.add(load_dino(str(TINY), str(other))[1])
    assert len(digests) == 3


def test_a_pickle_of_torch_and_its_refusals(tmp_path: Path, weights: Path) -> None:
    model, digest = load_dino(str(TINY), str(weights))
    file = tmp_path / "w.pth"
    torch.save(model.state_dict(), file)
    assert load_dino(str(TINY), str(file))[1] == digest
    torch.save({"code": print}, file)
    with pytest.raises(DinoLoadError, match=r"w\.pth: refused"):
        load_dino(str(TINY), str(file))
    with pytest.raises(DinoLoadError, match=r"nowhere\.pth: no such weight file"):
        load_dino(str(TINY), str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {n: t for n, t in s.items() if n != "norm.bias"}, "lacks norm.bias"),
        (lambda s: s | {"head.weight": torch.zeros(1)}, "has unknown head.weight"),
        (lambda s: s | {"cls_token": torch.zeros(1, 1, 8)}, r"cls_token is \(1, 1, 8\), expected"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, weights: Path, change, message: str) -> None:
    model, _ = load_dino(str(TINY), str(weights))
    file = tmp_path / "odd.safetensors"
    save_file(change(model.state_dict()), file)
    with pytest.raises(DinoLoadError, match=f"the weights do not fit: {message}"):
        load_dino(str(TINY), str(file))


def test_weights_that_are_not_finite(tmp_path: Path, weights: Path) -> None:
    state = load_dino(str(TINY), str(weights))[0].state_dict()
    state["norm.bias"][0] = torch.nan
    file = tmp_path / "diverged.safetensors"
    save_file(state, file)
    with pytest.raises(DinoLoadError, match=r"diverged\.safetensors: norm\.bias holds NaN"):
        load_dino(str(TINY), str(file))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("[", "cannot be read as sizes of a DINOv2"),
        ('{"embed_dim": 32}', "depth"),
        ('{"embed_dim": 33, "depth": 1, "num_heads": 2}', "num_heads: 2 does not divide embed_dim"),
        ('{"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 100}', "img_size: 100"),
        ('{"embed_dim": 32, "depth": 1, "num_heads": 2, "width": 1}', "width"),
        ('{"embed_dim": 99999, "depth": 1, "num_heads": 2}', "embed_dim"),
    ],
)
def test_impossible_sizes(tmp_path: Path, sizes: str, message: str) -> None:
    file = tmp_path / "sizes.json"
    file.write_text(sizes)
    with pytest.raises(DinoLoadError, match=message) as caught:
        load_dino(str(file), "random")
    assert str(file) in str(caught.value)


def test_names_that_nobody_knows() -> None:
    with pytest.raises(DinoLoadError, match="did you mean vit_small_patch14_dinov2"):
        load_dino("vit_smal_patch14_dinov2", "random")
    with pytest.raises(DinoLoadError, match=r"no weights 'lvd'.*it has lvd142m"):
        load_dino("vit_small_patch14_dinov2", "lvd")
    with pytest.raises(DinoLoadError, match=r"dino\.pretrained must name a weight file \(found"):
        load_dino(str(TINY), "lvd142m")
    with pytest.raises(DinoLoadError, match=r"must name weights of it, e\.g\. lvd142m, or"):
        load_dino("vit_small_patch14_dinov2", "")
    with pytest.raises(DinoLoadError, match=r"dino\.pretrained: gone\.pth: no such weight file"):
        load_dino(str(TINY), "gone.pth")


def test_a_file_that_is_not_here_and_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(self: TagWeights) -> None:
        raise DinoLoadError(self.unreachable("no network"))

    monkeypatch.setattr(TagWeights, "check_reachable", unreachable)
    weights = tag_weights("vit_small_patch14_reg4_dinov2", "lvd142m", tmp_path)
    assert weights.path is None
    assert weights.addresses == (
        "https://huggingface.co/timm/vit_small_patch14_reg4_dinov2.lvd142m/resolve/main/"
        "model.safetensors",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
    )
    with pytest.raises(DinoLoadError) as caught:
        load_dino("vit_small_patch14_reg4_dinov2", "lvd142m", cache_dir=tmp_path)
    message = str(caught.value)
    assert "model.safetensors (about 88 MB) is not on this machine" in message
    assert "set dino.pretrained to its path" in message
    assert all(address in message for address in weights.addresses)


def test_a_file_that_is_here_is_read_without_a_request(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads.DinoWeights, "path", weights)
    with pytest.raises(DinoLoadError, match="the weights do not fit"):  # it was read
        load_dino("vit_small_patch14_dinov2", "lvd142m", cache_dir=tmp_path)


def test_a_damaged_download_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    blob = tmp_path / "blobs" / ("0" * 64)
    blob.parent.mkdir()
    blob.write_text("damaged")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    monkeypatch.setattr(TagWeights, "check_reachable", lambda self: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(link))
    with pytest.raises(DinoLoadError, match="its sha256 is not 0000"):
        tag_weights("vit_small_patch14_dinov2", "lvd142m", tmp_path).fetch()
