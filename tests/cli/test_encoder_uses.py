"""`wsss config check` refuses encoders that the configured stages cannot use, as its page says."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hostile.harness import wsss
from wsss.cli.weights_check import check_weights
from wsss.clip.errors import UnsupportedEncoderError
from wsss.config.base import overlay
from wsss.config.load import from_mapping

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "other-encoders.md"

Settings = Mapping[str, Any]


def method(name: str, **settings: Any) -> Settings:
    return {"refine": {"method": name, "train": {"crop": 224}}, **settings}


NOTHING: Settings = {"refine": {"method": "none"}}
EXCEL = method("excel", cams={"source": "patch_text"})
COLUMNS: Mapping[str, Settings] = {
    "Grad-CAM, affinity, masks, WeCLIP, WeCLIP+": method("weclip"),
    "patch-text CAMs": NOTHING | {"cams": {"source": "patch_text"}},
    "ExCEL": EXCEL,
    "WeakCLIP": method("weakclip"),
    "`clip-vit`": NOTHING | {"retrain": {"enabled": True, "model": "clip-vit", "crop": 224}},
}
TRAINED = method("weakclip", variant="published")


def cells() -> Iterator[tuple[str, str, str]]:
    """Encoder, use and word of each cell of the page's table."""
    table = PAGE.read_text(encoding="utf-8").split("## What works")[1].split("\n\n")[1]
    heading, _, *rows = (line.strip("| ").split(" | ") for line in table.splitlines())
    assert heading[2:] == list(COLUMNS)
    for _, examples, *words in rows:
        for name in re.findall("`([^`]+)`", examples):
            yield from ((name, use, word) for use, word in zip(COLUMNS, words, strict=True))


def check(model: str, settings: Settings) -> None:
    base = {"clip": {"model": model, "pretrained": "random"}, "retrain": {"enabled": False}}
    check_weights(from_mapping(overlay(base, settings)))


@pytest.mark.parametrize(("model", "use", "word"), list(cells()))
def test_the_table_of_encoders(model: str, use: str, word: str) -> None:
    settings = COLUMNS[use]
    if word == "no":
        with pytest.raises(UnsupportedEncoderError):
            check(model, settings)
        return
    check(model, settings)
    if word != "yes":
        assert word == "only with frozen towers"
        with pytest.raises(UnsupportedEncoderError, match="only open_clip's ViT"):
            check(model, TRAINED)


def test_class_distributions_need_patches_among_the_texts() -> None:
    settings = method("weclip", cams={"affinity": {"kind": "distribution"}})
    check("EVA02-B-16", settings)
    with pytest.raises(UnsupportedEncoderError, match=r"cams\.affinity\.kind distribution"):
        check("ViT-B-16-SigLIP", settings)


def test_blocks_and_patch_are_compared() -> None:
    with pytest.raises(ValueError, match="last_blocks is 13, but EVA02-B-16 has 12 blocks"):
        check("EVA02-B-16", {**NOTHING, "cams": {"affinity": {"enabled": True, "last_blocks": 13}}})
    with pytest.raises(ValueError, match=r"patch_text\.blocks is 25, but ViT-L-14 has 24 blocks"):
        check(
            "ViT-L-14", {**NOTHING, "cams": {"source": "patch_text", "patch_text": {"blocks": 25}}}
        )
    with pytest.raises(ValueError, match=r"excel\.lvc_blocks is 13, but ViT-B-16 has 12 blocks"):
        check("ViT-B-16", overlay(EXCEL, {"refine": {"excel": {"lvc_blocks": 13}}}))
    with pytest.raises(
        ValueError, match=r"weakclip\.out_indices\.3 is 13, but ViT-B-16 has 12 blocks"
    ):
        check(
            "ViT-B-16", overlay(TRAINED, {"refine": {"weakclip": {"out_indices": [4, 6, 8, 13]}}})
        )
    with pytest.raises(ValueError, match=r"expected a multiple of the encoder's patch \(14 x 14"):
        check("EVA01-g-14", {"refine": {"method": "weclip", "train": {"crop": 320}}})
    with pytest.raises(ValueError, match=r"crop is 500 pixels; clip-vit .* patch, 16, e\.g\. 496"):
        check("ViT-B-16", {"retrain": {"enabled": True, "model": "clip-vit", "crop": 500}})
    with pytest.raises(ValueError, match=r"infer\.window is 320; .* patch \(14 x 14 pixels\)"):
        check("EVA01-g-14", method("weakclip", infer={"window": 320}))


def test_the_command_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = {"clip": {"model": "ViT-B-16-SigLIP", "pretrained": "webli"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(overlay(dict(EXCEL), clip)))
    monkeypatch.chdir(tmp_path)
    done = wsss("config", "check")
    done.refused("refine.method than excel")
    assert done.text.startswith("error: CAMs of source patch_text compare texts with patches")
