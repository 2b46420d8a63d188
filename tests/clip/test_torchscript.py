"""Weights out of TorchScript archives, without running what they hold."""

import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.clip.models import CONFIG, tiny_clip
from tests.hostile.payloads import Calls, Shell
from wsss.clip.errors import ClipLoadError
from wsss.clip.load import load_clip
from wsss.clip.weights import read_weights


class Exported(nn.Module):
    """A CLIP in half precision that is traced over image and text, as OpenAI's files were."""

    def __init__(self) -> None:
        super().__init__()
        model = tiny_clip().half()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            self.register_parameter(name, getattr(model, name))
        self.register_buffer("input_resolution", torch.tensor(64))
        self.model = [model]

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> Any:
        model = self.model[0]
        return model.encode_image(image), model.encode_text(text)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "ViT-tiny.pt"
    text = torch.zeros(1, 77, dtype=torch.long)
    traced = torch.jit.trace(Exported(), (torch.randn(1, 3, 64, 64).half(), text))
    torch.jit.save(traced, path)
    return path


def test_an_archive_gives_the_encoder_of_the_same_weights(archive: Path, tmp_path: Path) -> None:
    config, file = tmp_path / "tiny.json", tmp_path / "tiny.safetensors"
    config.write_text(json.dumps(CONFIG))
    save_file({k: v.contiguous() for k, v in tiny_clip().half().state_dict().items()}, file)
    expected = load_clip(str(config), str(file))
    clip = load_clip(str(config), str(archive))
    assert clip.digest == expected.digest
    images = torch.randn(2, 3, 64, 64)
    encode: Any = clip.model.encode_image
    assert torch.equal(encode(images), expected.model.encode_image(images))  # type: ignore[operator]
    stored = torch.jit.load(archive).state_dict()
    assert read_weights(archive).keys() == stored.keys()


class Masked(nn.Module):
    """With a tensor that is neither parameter nor buffer, as the mask of CLIP's text tower."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.register_buffer("seen", torch.ones(2, dtype=torch.bfloat16))
        self.attn_mask = torch.zeros(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.attn_mask


def test_of_a_scripted_module_only_parameters_and_buffers_are_read(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Masked()), path := tmp_path / "scripted.pt")
    weights = read_weights(path)
    assert set(weights) == {"linear.weight", "linear.bias", "seen"}
    for name, value in torch.jit.load(path).state_dict().items():
        assert torch.equal(weights[name], value)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.pt"
    torch.jit.save(torch.jit.script(nn.Linear(3, 4)), path)
    return path


def rewritten(archive: Path, path: Path, members: dict[str, bytes], *, packed: str = "") -> Path:
    """The archive with these contents of members; one is compressed."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            inner = name.partition("/")[2]
            kind = zipfile.ZIP_DEFLATED if inner == packed else zipfile.ZIP_STORED
            new.writestr(name, members.get(inner, old.read(name)), kind)
    return path


def test_code_of_an_archive_is_not_compiled(small: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(small) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".py"))
        text = archive.read(name) + b"\nraise SystemExit(']['"
    path = rewritten(small, tmp_path / "weights.pt", {name.partition("/")[2]: text})
    assert set(read_weights(path)) == {"weight", "bias"}


def payload(kind: str, folder: Path) -> dict[str, bytes]:
    """The content of a member."""
    shell = pickle.dumps(Shell(folder), 2)
    contents = {
        "command": {"data.pkl": shell},
        "command in a state": {"data.pkl": b"\x80\x02c__torch__\nM\n)\x81" + shell[2:-1] + b"b."},
        "eval": {"data.pkl": pickle.dumps(Calls(eval, f"open({str(folder / 'ran')!r}, 'w')"), 2)},
        "object of Python": {"data.pkl": pickle.dumps(Calls(getattr, OrderedDict, "clear"), 2)},
        "no module": {"data.pkl": pickle.dumps({"weight": 1}, 2)},
        "too few bytes": {"data/0": bytes(8)},
        "noise": {"data.pkl": b"\x80\x02" + bytes(range(200))},
        "nothing": {"data.pkl": b""},
    }
    return contents.get(kind, {})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("command", "refused, it names posix.system, which is code"),
        ("command in a state", "refused, it names posix.system, which is code"),
        ("eval", "refused, it names __builtin__.eval, which is code"),
        ("object of Python", "refused, it names __builtin__.getattr, which is code"),
        ("no module", "refused, its data is no module"),
        ("too few bytes", "refused, a tensor is larger than its bytes"),
        ("packed", "refused, its member 'small/data/0' is compressed"),
        ("noise", "is a damaged TorchScript archive"),
        ("nothing", "is a damaged TorchScript archive"),
    ],
)
def test_a_hostile_archive_is_refused_and_runs_nothing(
    small: Path, tmp_path: Path, kind: str, message: str
) -> None:
    packed = "data/0" if kind == "packed" else ""
    members = payload(kind, tmp_path)
    path = rewritten(small, tmp_path / "weights.pt", members, packed=packed)
    with pytest.raises(ClipLoadError) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_cut_archive_is_refused(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(small.read_bytes()[:-50])
    with pytest.raises(ClipLoadError, match="damaged archive"):
        read_weights(path)
