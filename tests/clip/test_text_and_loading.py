"""The text bank and its cache; loading by name, config, bare weights; refusals."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from tests.clip.models import CONFIG, tiny_clip
from wsss._compat import import_open_clip
from wsss.artifacts.checkpoint import save_tensors
from wsss.clip.errors import ClipLoadError
from wsss.clip.load import load_clip
from wsss.clip.text import embeddings
from wsss.clip.text.embeddings import text_bank
from wsss.compute.threads import fixed_threads


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny.json").write_text(json.dumps(CONFIG))
    save_file(tiny_clip().state_dict(), folder / "tiny.safetensors")
    return folder / "tiny.json", folder / "tiny.safetensors"


def test_config_and_weights_give_the_model(files: tuple[Path, Path]) -> None:
    clip = load_clip(str(files[0]), str(files[1]))
    images = torch.randn(1, 3, 64, 64)
    expected: Any = tiny_clip().encode_image(images)
    torch.testing.assert_close(clip.model.encode_image(images), expected)
    assert clip.logit_scale == pytest.approx(100, rel=1e-3)


class _Calls(TorchFunctionMode):
    """Notes the names of all functions of torch that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def test_no_random_numbers_are_drawn_where_weights_follow(files: tuple[Path, Path]) -> None:
    config, weights = map(str, files)
    random = {"normal_", "uniform_", "kaiming_uniform_", "randn"}
    with _Calls() as calls:
        load_clip(config, "random")
    assert calls.names & random
    with _Calls() as calls:
        load_clip(config, weights)
    assert not calls.names & random


def test_a_model_of_the_hub_without_its_weights_is_an_error(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip only warns, and gives a model that was trained on nothing."""

    def download(model_id: str, filename: str = "", **_: object) -> str:
        if filename != "open_clip_config.json":
            raise OSError("no network")
        path = files[0].with_name(filename)
        path.write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
        return str(path)

    open_clip = import_open_clip()
    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", download)
    for tag in ("openai", ""):
        with pytest.raises(ClipLoadError, match=r"hf-hub:someone/model .* could not be loaded"):
            load_clip("hf-hub:someone/model", tag)
    assert load_clip("hf-hub:someone/model", "random").digest


def test_features_are_unit_vectors_averaged_over_templates(files: tuple[Path, Path]) -> None:
    clip = load_clip(str(files[0]), str(files[1]))
    bank = text_bank(clip, ["cat", "dog"], ["grass"], ["a {}.", "the {} there."])
    assert bank.classes.shape == (2, 24)
    torch.testing.assert_close(bank.classes.norm(dim=-1), torch.ones(2))
    parts = [
        torch.nn.functional.normalize(clip.model.encode_text(clip.tokenize([text])).float(), dim=-1)
        for text in ("a cat.", "the cat there.")
    ]
    expected = torch.nn.functional.normalize((parts[0] + parts[1]) / 2, dim=-1)[0]
    torch.testing.assert_close(bank.classes[0], expected, rtol=1e-4, atol=1e-5)


def test_padding_is_not_computed(files: tuple[Path, Path]) -> None:
    clip = load_clip(str(files[0]), str(files[1]))
    shapes = []
    clip.model.get_submodule("transformer").register_forward_pre_hook(
        lambda _, inputs: shapes.append(inputs[0].shape)
    )
    text_bank(clip, ["cat"], [], ["a {}.", "the little {} there."])
    # start, a, cat, full stop, end; start, the, little, cat, there, full stop, end
    assert shapes == [(2, 7, clip.model.get_parameter("positional_embedding").shape[1])]


def test_words_of_all_lengths_in_several_batches(files: tuple[Path, Path]) -> None:
    """Each gets its own features, on any number of threads."""
    clip = load_clip(str(files[0]), str(files[1]))
    words = [
        f"{'big ' * (index % 3)}{name}" for index, name in enumerate(["cat", "dog", "cow"] * 4)
    ]
    templates = ["a {}.", "the {} there."]
    banks = []
    for threads in (1, 2):
        with fixed_threads(threads):
            banks.append(text_bank(clip, words, [], templates).classes)
    assert torch.equal(*banks)
    alone = torch.cat([text_bank(clip, [word], [], templates).classes for word in words])
    torch.testing.assert_close(banks[0], alone, rtol=1e-5, atol=1e-6)


def test_cache_is_keyed_by_content_and_used(files: tuple[Path, Path], tmp_path: Path) -> None:
    clip = load_clip(str(files[0]), str(files[1]))
    first = text_bank(clip, ["cat"], [], ["a {}."], cache_dir=tmp_path)
    (entry,) = tmp_path.iterdir()
    stored = entry.read_bytes()
    save_tensors(entry, {"features": torch.full((1, 24), 0.5)}, {"words": '["cat"]'})
    assert torch.equal(
        text_bank(clip, ["cat"], [], ["a {}."], cache_dir=tmp_path).classes,
        torch.full((1, 24), 0.5),
    )
    entry.write_bytes(stored[:20])  # damaged: computed again
    again = text_bank(clip, ["cat"], [], ["a {}."], cache_dir=tmp_path)
    assert torch.equal(first.classes, again.classes)
    text_bank(clip, ["dog"], [], ["a {}."], cache_dir=tmp_path)
    text_bank(clip, ["cat"], [], ["one {}."], cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("changed", ["code_digest", "package_versions"])
def test_embeddings_of_other_code_or_packages_are_not_taken(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    clip = load_clip(str(files[0]), str(files[1]))
    text_bank(clip, ["cat"], [], ["a {}."], cache_dir=tmp_path)
    monkeypatch.setattr(embeddings, changed, lambda *_: {"torch": "another"})
    monkeypatch.setattr(embeddings, "encode_words", lambda *_: torch.full((1, 24), 0.25))
    again = text_bank(clip, ["cat"], [], ["a {}."], cache_dir=tmp_path)
    assert torch.equal(again.classes, torch.full((1, 24), 0.25))


def test_the_digest_covers_what_the_weights_do_not_say(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Activation, heads and normalisation decide the features as well as the weights do."""
    config = json.loads(files[0].read_text())
    vision = config["vision_cfg"]
    others = [
        config | {"quick_gelu": not config.get("quick_gelu", False)},
        config | {"vision_cfg": vision | {"head_width": vision.get("head_width", 64) // 2}},
        {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}},
    ]
    digests = {load_clip(str(files[0]), str(files[1])).digest}
    for other in others:
        (tmp_path / "other.json").write_text(json.dumps(other))
        digests.add(load_clip(str(tmp_path / "other.json"), str(files[1])).digest)
    assert len(digests) == 1 + len(others)


@pytest.mark.parametrize("templates", [[], ["no place"], ["{} and {}"]])
def test_bad_template_is_refused(files: tuple[Path, Path], templates: list[str]) -> None:
    clip = load_clip(str(files[0]), str(files[1]))
    with pytest.raises(ValueError, match="template"):
        text_bank(clip, ["cat"], [], templates)


def test_wrong_weights_and_files_are_clear_errors(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"visual.conv1.weight": torch.ones(1)}, other)
    with pytest.raises(ClipLoadError, match=r"other\.safetensors"):
        load_clip(str(files[0]), str(other))
    malicious = tmp_path / "weights.pt"
    malicious.write_bytes(pickle.dumps(print))
    with pytest.raises(ClipLoadError, match=r"weights\.pt"):
        load_clip(str(files[0]), str(malicious))
    with pytest.raises(ClipLoadError):
        load_clip("no-such-model", "openai")


@pytest.mark.parametrize(("value", "dtype"), [(torch.nan, "float16"), (-torch.inf, "float32")])
def test_weights_that_are_not_finite_are_refused(
    files: tuple[Path, Path], tmp_path: Path, value: float, dtype: str
) -> None:
    state = {name: t.to(getattr(torch, dtype)) for name, t in tiny_clip().state_dict().items()}
    state["visual.proj"][3, 1] = state["ln_final.bias"][0] = value
    file = tmp_path / "diverged.safetensors"
    save_file(state, file)
    message = r"diverged\.safetensors: visual\.proj and 1 more holds NaN or infinity, expected"
    with pytest.raises(ClipLoadError, match=message):
        load_clip(str(files[0]), str(file))
