"""`wsss weights`, and a named CLIP without a network."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from tests.clip.models import CONFIG, tiny_clip
from wsss._compat import import_open_clip
from wsss.cli.weights_check import check_weights
from wsss.cli.weights_list import weights_by_name, weights_of
from wsss.clip.downloads import tag_weights
from wsss.clip.errors import ClipLoadError
from wsss.clip.load import load_clip
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.dino.errors import DinoLoadError

NOWHERE = "http://127.0.0.1:9"  # refuses at once, as a machine without network does
CLIP = "ViT-B-16-quickgelu/openai"
DINO = "vit_small_patch14_dinov2/lvd142m"


def wsss(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": NOWHERE, "HF_HOME": str(folder / "hub"), "TORCH_HOME": str(folder / "torch"),
        "https_proxy": NOWHERE,
    }  # fmt: skip
    command = [sys.executable, "-m", "wsss", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_without_a_network_the_first_attempt_says_what_to_do(tmp_path: Path) -> None:
    start = time.monotonic()
    clip, backbone = (wsss(tmp_path, "weights", "fetch", name) for name in (CLIP, "resnet101"))
    assert time.monotonic() - start < 60
    assert clip.returncode == backbone.returncode == 1
    assert "Retrying" not in clip.stderr
    for part in (
        "open_clip_model.safetensors (about 598 MB)", "/vit_base_patch16_clip_224.openai/resolve/",
        "/ViT-B-16.pt", "weights/open_clip_model.safetensors",
        "set clip.pretrained (--weights) to its path",
    ):  # fmt: skip
        assert part in clip.stderr
    for part in ("/resnet101-", f"put it at {tmp_path / 'torch'}", "set retrain.init to its path"):
        assert part in backbone.stderr
    line = str(weights_by_name(CLIP, tmp_path))
    assert line.startswith(f"missing  {CLIP}: `wsss weights fetch {CLIP}`, or fetch https://hugg")


def test_dino_by_name_and_as_a_configuration_names_it(tmp_path: Path) -> None:
    line = str(weights_by_name(DINO, tmp_path))
    assert line.startswith(f"missing  {DINO}: `wsss weights fetch {DINO}`, or fetch https://hugg")
    assert "set dino.pretrained to its path" in line
    path = in_hub_cache(tmp_path / "dino", "model.safetensors", "vit_small_patch14_dinov2.lvd142m")
    path.write_bytes(bytes(2_000_000))
    assert str(weights_by_name(DINO, tmp_path)) == f"here     {DINO}: {path} (2 MB)"
    random = {"clip": {"pretrained": "random"}, "retrain": {"enabled": False}}
    plus = {"refine": {"method": "weclip_plus"}}
    other = {"dino": {"pretrained": str(tmp_path / "gone.pth")}}
    listed = weights_of([from_mapping(random | plus)], tmp_path)
    assert [weights.path for weights in listed] == [path]
    (gone,) = weights_of([from_mapping(random | plus | other)], tmp_path)
    assert str(gone).endswith("gone.pth: no such file; dino.pretrained names it")
    assert not weights_of([from_mapping(random | other)], tmp_path)  # nobody reads it


@pytest.mark.parametrize(
    ("dino", "message"),
    [
        ({"model": "vit_small_patch14"}, "there is no DINOv2 'vit_small_patch14'"),
        ({"pretrained": "lvd"}, "timm has no weights 'lvd'"),
        ({"model": "vit_giant", "pretrained": "random"}, "there is no DINOv2 'vit_giant'"),
    ],
)
def test_names_of_dino_are_checked_where_it_is_read(dino: dict[str, str], message: str) -> None:
    sections = {"clip": {"pretrained": "random"}, "retrain": {"enabled": False}, "dino": dino}
    check_weights(from_mapping(sections))
    with pytest.raises(DinoLoadError, match=message):
        check_weights(from_mapping(sections | {"refine": {"method": "weclip_plus"}}))


def test_models_of_one_tag_are_listed_each(tmp_path: Path) -> None:
    """OpenAI's tag names the weights of several models, and so does that of DINOv2's release."""
    clips, dinos = ("ViT-B-16-quickgelu", "ViT-L-14-quickgelu"), ("small", "base")
    configs = [from_mapping(_no_segmenter(model=model, pretrained="openai")) for model in clips]
    for size in dinos:
        other = {"dino": {"model": f"vit_{size}_patch14_dinov2"}}
        plus = {"refine": {"method": "weclip_plus"}} | other
        configs.append(from_mapping(_no_segmenter(pretrained="random") | plus))
    assert [weights.name for weights in weights_of(configs, tmp_path)] == [
        *(f"{model}/openai" for model in clips),
        *(f"vit_{size}_patch14_dinov2/lvd142m" for size in dinos),
    ]


def _no_segmenter(**clip: str) -> dict[str, Any]:
    return {"clip": clip, "retrain": {"enabled": False}}


def test_weights_are_held_against_the_model_before_a_run(tmp_path: Path) -> None:
    """By the header of their file, as loading them would."""
    model, weights = tmp_path / "tiny.json", tmp_path / "tiny.safetensors"
    model.write_text(json.dumps(CONFIG))
    save_file(tiny_clip().state_dict(), weights)

    def check(**clip: str) -> None:
        sections = {"refine": {"method": "none"}, "cams": {"affinity": {"enabled": False}}}
        check_weights(from_mapping(_no_segmenter(**clip) | sections))

    check(model=str(model), pretrained=str(weights))
    check(model=str(model), pretrained="random")
    check(model="from-weights", pretrained=str(weights))
    with pytest.raises(ConfigError) as raised:
        check(model=str(model), pretrained="openai")
    assert str(raised.value) == (
        "clip.model is a model config, so clip.pretrained must name a weight file (found 'openai')"
    )
    for model_name in ("ViT-B-16", "from-weights"):
        with pytest.raises(ClipLoadError) as loaded:
            load_clip(model_name, "")
        with pytest.raises(ConfigError) as raised:
            check(model=model_name, pretrained="")
        assert str(loaded.value) == f"{model_name}: {raised.value}"
        assert f"clip.model is {model_name}, so clip.pretrained must name" in str(raised.value)
    dino = {"dino": {"model": str(model)}, "refine": {"method": "weclip_plus"}}
    with pytest.raises(ConfigError, match=r"so dino\.pretrained must name a weight file"):
        check_weights(from_mapping(_no_segmenter(model=str(model), pretrained="random") | dino))
    with pytest.raises(ClipLoadError) as loaded:
        load_clip("ViT-B-16-quickgelu", str(weights))
    with pytest.raises(ClipLoadError) as checked:
        check(model="ViT-B-16-quickgelu", pretrained=str(weights))
    assert str(checked.value) == str(loaded.value)
    assert str(checked.value).endswith("clip.model (--clip) must name the model of these weights")
    weights.write_bytes(weights.read_bytes()[:-1])
    for name in (str(model), "from-weights"):
        with pytest.raises(ClipLoadError, match=r"tiny\.safetensors: is damaged or no safetensors"):
            check(model=name, pretrained=str(weights))


@pytest.mark.slow
def test_weights_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"clip": {"pretrained": "gone.safetensors"}}))
    listed = wsss(tmp_path, "weights", "check", "--config", "config.yaml")
    assert listed.stdout == "missing  gone.safetensors: no such file; clip.pretrained names it\n"
    (tmp_path / "gone.safetensors").write_bytes(bytes(3_000_000))
    listed = wsss(tmp_path, "weights", "check", "--config", "config.yaml")
    assert listed.stdout == "here     gone.safetensors: gone.safetensors (3 MB)\n"
    assert listed.returncode == 0


def in_hub_cache(folder: Path, name: str, model: str = "vit_base_patch16_clip_224.openai") -> Path:
    """A file where the hub's client stores downloads of weights, by default of CLIP."""
    repository = folder / f"models--timm--{model}"
    path = repository / "snapshots" / ("0" * 40) / name
    path.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return path


def test_a_file_that_was_fetched_is_read_without_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_clip, constants = import_open_clip(), pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16-quickgelu", CONFIG)
    with pytest.raises(ClipLoadError, match="is not on this machine"):
        load_clip(*CLIP.split("/"), cache_dir=tmp_path)
    path = in_hub_cache(tmp_path, "open_clip_model.safetensors")
    save_file(tiny_clip().state_dict(), path)
    weights = tag_weights(*CLIP.split("/"), tmp_path)
    assert weights is not None
    assert weights.path == path
    start = time.monotonic()
    clip = load_clip(*CLIP.split("/"), cache_dir=tmp_path)
    assert time.monotonic() - start < 10  # a request would be repeated for a minute
    assert clip.digest
    assert not constants.HF_HUB_OFFLINE


def test_a_file_by_path_is_not_said_to_be_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_clip = import_open_clip()
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16-quickgelu", CONFIG)
    save_file(tiny_clip().state_dict(), tmp_path / "tiny.safetensors")
    load_clip("ViT-B-16-quickgelu", str(tmp_path / "tiny.safetensors"))
    assert "initialized randomly" not in caplog.text
    load_clip("ViT-B-16-quickgelu", "random")
    assert "initialized randomly" in caplog.text
    (tmp_path / "tiny.json").write_text(json.dumps(CONFIG))
    load_clip(str(tmp_path / "tiny.json"), "random")
    assert f"clip.pretrained is random: {tmp_path / 'tiny.json'} is not trained" in caplog.text
