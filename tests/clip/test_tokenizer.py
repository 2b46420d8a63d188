"""Tokenizers: CLIP's own with options, and Hugging Face's from a folder."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.clip.models import CONFIG
from wsss.clip.errors import ClipLoadError, UnsupportedEncoderError
from wsss.clip.load import load_clip
from wsss.clip.text.embeddings import text_bank

_WORDS = ("[PAD]", "[UNK]", "[SEP]", "a", "cat", "dog")


def write_config(folder: Path, name: str = "tiny.json", **text: Any) -> str:
    """A model config with the given keys of its text tower."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(CONFIG | {"text_cfg": CONFIG["text_cfg"] | text}), encoding="utf-8")
    return str(path)


def write_tokenizer(folder: Path, words: tuple[str, ...] = _WORDS) -> None:
    """The files of a tokenizer that splits at spaces and ends each text with [SEP]."""
    tokenizers = pytest.importorskip("tokenizers", reason="for tokenizers of Hugging Face")
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 2)]
    )
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    about |= {"unk_token": "[UNK]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")


def test_a_folder_holds_the_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_tokenizer(tmp_path / "words")
    text = {"hf_tokenizer_name": "words", "context_length": 6, "vocab_size": 6}
    clip = load_clip(write_config(tmp_path, **text), "random")  # the folder lies beside the config
    assert clip.tokenize(["a  cat", "zebra"]).tolist() == [[3, 4, 2, 0, 0, 0], [1, 2, 0, 0, 0, 0]]
    bank = text_bank(clip, ["cat", "dog"], [], ["a {}"])
    assert bank.classes.shape == (2, 24)
    assert not torch.equal(*bank.classes)

    options = {"tokenizer_kwargs": {"strip_sep_token": True}}
    stripped = load_clip(write_config(tmp_path, "b.json", **text, **options), "random")
    assert stripped.tokenize(["a cat"]).tolist() == [[3, 4, 0, 0, 0, 0]]
    write_tokenizer(tmp_path / "words", (*_WORDS[:4], "dog", "cat"))
    edited = load_clip(write_config(tmp_path, **text), "random")
    assert len({clip.digest, stripped.digest, edited.digest}) == 3  # keys of the caches

    few = write_config(tmp_path, "few.json", **(text | {"vocab_size": 4}))
    with pytest.raises(ClipLoadError, match="ids up to 5, but the model embeds 4 only"):
        load_clip(few, "random").tokenize(["cat"])


def test_a_tokenizer_that_cannot_be_had_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("bert-base-uncased", str(empty)):
        with pytest.raises(ClipLoadError) as caught:
            load_clip(write_config(tmp_path, hf_tokenizer_name=name), "random")
        message = str(caught.value)
        assert message.startswith(f"the model's tokenizer {name!r} ")
        assert "\n" not in message
        remedies = "pip install transformers", "into a folder and name that folder", "it must hold"
        assert any(remedy in message for remedy in remedies)
    with pytest.raises(ClipLoadError, match="/no/where: no such folder of a tokenizer"):
        load_clip(write_config(tmp_path, hf_tokenizer_name="/no/where"), "random")
    options = {"trust_remote_code": True}
    hostile = {"hf_tokenizer_name": "a/b", "tokenizer_kwargs": options}
    with pytest.raises(ClipLoadError, match="would run code of others; take it out"):
        load_clip(write_config(tmp_path, **hostile), "random")


def test_without_transformers_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ClipLoadError, match=r"package is missing .* pip install transformers"):
        load_clip(write_config(tmp_path, hf_tokenizer_name="bert-base-uncased"), "random")


def test_options_of_clips_own_tokenizer_are_passed_on(tmp_path: Path) -> None:
    plain = load_clip(write_config(tmp_path), "random")
    clean = {"tokenizer_kwargs": {"clean": "canonicalize"}}
    canonical = load_clip(write_config(tmp_path, **clean), "random")
    assert not torch.equal(plain.tokenize(["a cat!"]), plain.tokenize(["a cat"]))
    assert torch.equal(canonical.tokenize(["a cat!"]), canonical.tokenize(["a cat"]))
    assert plain.digest != canonical.digest
    for options in ({"no_such": 1}, {"clean": "nothing"}, {"bpe_path": "/no/where"}):
        with pytest.raises(ClipLoadError, match="tokenizer_kwargs: CLIP's tokenizer does not take"):
            load_clip(write_config(tmp_path, tokenizer_kwargs=options), "random")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("RN50", "a ResNet"), ("coca_ViT-B-32", "as CoCa's")],
)
def test_towers_without_a_class_token_are_refused_at_once(name: str, kind: str) -> None:
    with pytest.raises(UnsupportedEncoderError, match=f"{name}: the image tower is .*{kind}"):
        load_clip(name, "webli")  # before any download
