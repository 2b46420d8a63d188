"""Model configs that no CLIP can have: refused by what they say, before anything is built."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from tests.clip.models import CONFIG, tiny_clip
from tests.hostile.harness import message_in_child
from wsss._compat import import_open_clip
from wsss.cli.weights_check import check_weights
from wsss.clip.errors import ClipLoadError
from wsss.clip.load import load_clip
from wsss.clip.weights import weights_digest
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "patch 0": (
        {"vision_cfg": {"patch_size": 0}},
        "vision_cfg.patch_size: expected a number greater",
    ),
    "negative patch": ({"vision_cfg": {"patch_size": -16}}, "vision_cfg.patch_size: expected"),
    "fractional patch": ({"vision_cfg": {"patch_size": 16.5}}, "number (found 16.5)"),
    "patch as text": ({"vision_cfg": {"patch_size": "16"}}, "a whole number (found '16')"),
    "patch as true": ({"vision_cfg": {"patch_size": True}}, "a whole number (found True)"),
    "width 0": ({"vision_cfg": {"width": 0}}, "vision_cfg.width: expected a number greater than 0"),
    "a million layers": ({"vision_cfg": {"layers": 10**6}}, "vision_cfg.layers: expected a number"),
    "huge width": ({"text_cfg": {"width": 10**9}}, "text_cfg.width: expected a number less than"),
    "huge vocabulary": ({"text_cfg": {"vocab_size": 10**9}}, "text_cfg.vocab_size: expected"),
    "huge context": ({"text_cfg": {"context_length": 10**6}}, "text_cfg.context_length: expected"),
    "heads": ({"text_cfg": {"heads": 3}}, "text_cfg.heads: 3 does not divide the width 32"),
    "head width": ({"vision_cfg": {"head_width": 36}}, "head_width: 36 does not divide the width"),
    "half a patch": ({"vision_cfg": {"image_size": 72}}, "image_size: 72 is no multiple of the pa"),
    "image below patch": ({"vision_cfg": {"image_size": 8}}, "image_size: 8 is no multiple of"),
    "two sides": ({"vision_cfg": {"image_size": [64, 9999]}}, "image_size: 9999 is no multiple"),
    "ratio": (
        {"vision_cfg": {"mlp_ratio": -4.0}},
        "vision_cfg.mlp_ratio: expected a number greater",
    ),
    "tiny ratio": (
        {"text_cfg": {"mlp_ratio": 1e-3}},
        "mlp_ratio: 0.001 of the width 32 is nothing",
    ),
    "NaN": ({"vision_cfg": {"mlp_ratio": float("nan")}}, "vision_cfg.mlp_ratio: expected"),
    "embed_dim": ({"embed_dim": None}, "embed_dim: expected a whole number (found None)"),
    "unknown key": ({"vision_cfg": {"pathc_size": 16}}, "vision_cfg.pathc_size: unknown key"),
    "unknown section": ({"audio_cfg": {}}, "audio_cfg: unknown key"),
    "no section": (
        {"text_cfg": None},
        "text_cfg: expected keys with values, e.g. {key: value} (found None)",
    ),
    "odd activation": (
        {"text_cfg": {"act_kwargs": {"no": 1}}},
        "open_clip cannot build this model",
    ),
    "memory": (
        {"text_cfg": {"width": 16_384, "layers": 256}},
        "the model would take",
    ),
}


def write(folder: Path, change: dict[str, Any], **more: Any) -> str:
    config = dict(CONFIG)
    for key, value in change.items():
        below = config.get(key)
        config[key] = below | value if isinstance(below, dict) and value is not None else value
    path = folder / "model.json"
    path.write_text(json.dumps({"model_cfg": config, **more}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", WRONG)
def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path, name: str) -> None:
    change, message = WRONG[name]
    file = write(tmp_path, change)
    import_open_clip()  # once, and not in every child
    text = message_in_child(lambda: load_clip(file, "random"))
    assert file in text
    assert message in text


def test_sizes_are_compared_with_the_weights_before_memory_is_taken(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    save_file(tiny_clip().state_dict(), weights)
    file = write(tmp_path, {"vision_cfg": {"width": 16_384}})
    text = message_in_child(lambda: load_clip(file, str(weights)))
    assert "the weights do not fit" in text
    assert "is (17, 48), expected (17, 16384)" in text


@pytest.mark.parametrize(
    "preprocess",
    [5, {"mean": [0.5, 0.5]}, {"std": ["a", "b", "c"]}, {"std": [0.5, 0.5, 0]}, {"mean": "0.5"}],
    ids=str,
)
def test_colours_that_are_no_numbers_are_refused(tmp_path: Path, preprocess: object) -> None:
    with pytest.raises(ClipLoadError, match=r"model\.json: preprocess_cfg.*: found"):
        load_clip(write(tmp_path, {}, preprocess_cfg=preprocess), "random")


def test_a_folder_of_open_clip_is_read_as_its_config_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    write(tmp_path, {}, preprocess_cfg={"mean": [0.1, 0.2, 0.3]})
    (tmp_path / "model.json").rename(tmp_path / "open_clip_config.json")
    with pytest.raises(ClipLoadError, match=r"clip\.pretrained must name a weight file"):
        load_clip(f"local-dir:{tmp_path}")
    save_file(tiny_clip().state_dict(), tmp_path / "open_clip_model.safetensors")
    clip = load_clip(f"local-dir:~/{tmp_path.name}")
    assert weights_digest(clip.model.state_dict()) == weights_digest(tiny_clip().state_dict())
    assert clip.mean == (0.1, 0.2, 0.3)
    with pytest.raises(ClipLoadError) as refused:
        load_clip(f"local-dir:{tmp_path}", "openai")
    section = {"model": f"local-dir:{tmp_path}", "pretrained": "openai"}
    with pytest.raises(ConfigError) as checked:
        check_weights(from_mapping({"clip": section}))
    assert str(refused.value) == f"local-dir:{tmp_path}: {checked.value}"
    with pytest.raises(ClipLoadError, match=r"nowhere/open_clip_config\.json: cannot be read"):
        load_clip("local-dir:nowhere", "random")
