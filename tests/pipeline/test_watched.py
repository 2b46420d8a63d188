"""Parameters of rules that stand for files which no rule makes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.builders import clip_es_config
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.stage import STAGES
from wsss.artifacts.staleness import setting_differences
from wsss.config.clip import folder_files
from wsss.pipeline import watched
from wsss.pipeline.watched import file_contents, seeds_state


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def replace(path: Path, text: str) -> None:
    """By a file with the same time."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    os.utime(path, ns=(10**18, 10**18))


def test_weights_of_the_same_size_and_time_are_told_apart() -> None:
    path = Path("weights.pt")
    replace(path, "one")
    first = file_contents([str(path)])
    replace(path, "two")
    second = file_contents([str(path)])
    replace(path, "one")
    assert first == file_contents([str(path)]) != second
    path.unlink()
    assert file_contents([str(path)]) == "weights.pt missing"


def test_large_files_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("weights.pt")
    replace(path, "one")
    first = file_contents([str(path)])
    monkeypatch.setattr(watched, "_BYTES_WORTH_REMEMBERING", 0)
    watched._digest.cache_clear()
    assert file_contents([str(path)]) == first
    watched._digest.cache_clear()
    monkeypatch.setattr(watched, "digest_file", lambda path: "read again")
    assert file_contents([str(path)]) == first
    replace(path, "two")
    assert file_contents([str(path)]) == "weights.pt read again"
    Path("results/cache/digests.json").write_text("[]")
    watched._digest.cache_clear()
    assert file_contents([str(path)]) == "weights.pt read again"


def test_what_rules_make_is_left_to_snakemake() -> None:
    products = ["results/run/a.pt", str(Path("results/run/b.pt").absolute())]
    assert file_contents(products, ["run"]) == ""
    assert file_contents(["results/a.pt"], ["run"]) == "a.pt missing"


def test_imported_seeds_are_told_apart_and_others_do_not_count() -> None:
    external = {"source": "external", "external": {"path": "seeds"}}
    assert seeds_state(clip_es_config({})) == ""
    Path("seeds").mkdir()
    states = set()
    for text in ("one", "two"):
        replace(Path("seeds/a.npy"), text)
        Path("seeds/notes.txt").write_text(text)
        watched._listing.cache_clear()
        states.add(seeds_state(clip_es_config({"cams": external})))
    assert len(states) == 2


def test_a_local_tokenizer_is_watched() -> None:
    """Beside the model's configuration, or in the folder of a whole model."""
    Path("clip/words").mkdir(parents=True)
    Path("clip/words/tokenizer.json").write_text("{}")
    config = {"model_cfg": {"text_cfg": {"hf_tokenizer_name": "words"}}}
    for name in ("tiny.json", "open_clip_config.json"):
        Path("clip", name).write_text(json.dumps(config))
    assert folder_files("clip/tiny.json") == ["clip/words/tokenizer.json"]
    whole = ["clip/open_clip_config.json", "clip/tiny.json"]
    assert folder_files("local-dir:clip") == whole
    Path("clip/open_clip_config.json").write_text("{}")  # its weights lie there, too
    assert folder_files("local-dir:clip") == whole
    for model in ("ViT-B-16", "from-weights", "local-dir:nowhere", "clip/words/tokenizer.json"):
        assert folder_files(model) == []
    for name in ("of/the-hub", "", None):
        Path("clip/tiny.json").write_text(json.dumps({"text_cfg": {"hf_tokenizer_name": name}}))
        assert folder_files("clip/tiny.json") == []


@pytest.mark.parametrize(
    ("model", "file"),
    [("local-dir:clip", "open_clip_model.safetensors"), ("clip/tiny.json", "tokenizer.json")],
)
def test_an_artifact_names_the_files_of_its_encoder(model: str, file: str) -> None:
    """So `wsss verify`, stages and scores notice that one was exchanged."""
    Path("clip/words").mkdir(parents=True)
    Path("clip/open_clip_config.json").write_text("{}")
    Path("clip/tiny.json").write_text('{"text_cfg": {"hf_tokenizer_name": "words"}}')
    provenances = []
    for text in ("one", "other"):
        Path("clip/open_clip_model.safetensors").write_text(text)
        Path("clip/words/tokenizer.json").write_text(text)
        provenances.append(_made_by("cams", {"clip": {"model": model, "pretrained": ""}}))
    (sentence,) = setting_differences(*provenances)
    assert f"another file as clip.model/{file} (sha256 " in sentence
    assert provenances[0].key() == provenances[1].key()  # other fields tell the weights apart


def _made_by(stage: str, config: dict[str, Any]) -> Provenance:
    declared = STAGES[stage]
    return declared.provenance(declared.select(clip_es_config(config)))
