"""Bad checkpoints, through every reader of weights: refused with the file, nothing is run."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from safetensors.torch import save_file
from torch import nn

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.clip.weights import read_weights
from wsss.errors import WsssError
from wsss.refine.released.reading import read_source
from wsss.retrain.weights.initial import load_backbone

from .conftest import Folder
from .harness import in_child, wsss
from .payloads import Calls, Shell, repacked, safetensors

Maker = Callable[[Path], object]
READERS: dict[str, Callable[[Path], object]] = {
    "clip": read_weights,
    "release": read_source,
    "backbone": lambda path: load_backbone(nn.Linear(2, 2), path),
    "ours": load_checkpoint,
}


def _bytes(content: bytes) -> Maker:
    return lambda path: path.write_bytes(content)


def _entry(kind: str, shape: list[int], start: int, end: int) -> str:
    return json.dumps({"a": {"dtype": kind, "shape": shape, "data_offsets": [start, end]}})


def _two(second: tuple[int, int]) -> str:
    entry = {"dtype": "F32", "shape": [2]}
    return json.dumps(
        {"a": entry | {"data_offsets": [0, 8]}, "b": entry | {"data_offsets": second}}
    )


def _saved(path: Path) -> Path:
    torch.save({"a": torch.arange(4.0)}, path)
    return path


def _in_archive(path: Path) -> None:
    inner = pickle.dumps(Shell(path.parent), protocol=2)
    repacked(_saved(path.with_suffix(".good")), path, **{"data.pkl": inner})


def _larger(path: Path) -> None:
    """It declares 10^6 numbers and stores four."""
    good = _saved(path.with_suffix(".good"))
    with zipfile.ZipFile(good) as archive:
        name = next(m for m in archive.namelist() if m.endswith("data.pkl"))
        content = archive.read(name)
    lie = b"J" + struct.pack("<i", 10**6)
    assert content.count(b"K\x04") >= 2
    repacked(good, path, **{"data.pkl": content.replace(b"K\x04", lie)})


def _without_numbers(path: Path) -> None:
    with (
        zipfile.ZipFile(_saved(path.with_suffix(".good"))) as old,
        zipfile.ZipFile(path, "w") as new,
    ):
        for member in old.infolist():
            if "data/" not in member.filename:
                new.writestr(member.filename, old.read(member))


def _tar(path: Path) -> None:
    """The format of torch 0.1: unpacked to a folder, with a way out of it."""
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle", "../ran"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def _pickled(value: Callable[[Path], object], protocol: int = 2) -> Maker:
    return lambda path: path.write_bytes(pickle.dumps(value(path), protocol=protocol))


def _torch(value: Callable[[Path], object]) -> Maker:
    return lambda path: torch.save(value(path), path)


SAFETENSORS: dict[str, tuple[Maker, str]] = {
    "empty": (_bytes(b""), ""),
    "text": (_bytes(b"weights, honestly"), ""),
    "pickle": (_pickled(lambda path: Shell(path.parent)), ""),
    "header of 2^63": (_bytes(safetensors("{}", length=2**63)), ""),
    "header of 99 MB": (_bytes(safetensors("{}", length=99_000_000)), ""),
    "header beyond the file": (_bytes(safetensors("{}", length=9)), ""),
    "header of nothing": (_bytes(safetensors("")), ""),
    "no JSON": (_bytes(safetensors("{'a': 1}")), ""),
    "deep JSON": (_bytes(safetensors('{"a":' + "[" * 100_000)), ""),
    "a list": (_bytes(safetensors("[]")), ""),
    "unknown type": (_bytes(safetensors(_entry("F7", [2], 0, 8), bytes(8))), ""),
    "beyond the file": (_bytes(safetensors(_entry("F32", [2], 0, 8), bytes(4))), ""),
    "backwards": (_bytes(safetensors(_entry("F32", [2], 8, 0), bytes(8))), ""),
    "negative shape": (_bytes(safetensors(_entry("F32", [-2], 0, 8), bytes(8))), ""),
    "terabytes": (_bytes(safetensors(_entry("F32", [2**20, 2**20], 0, 8), bytes(8))), ""),
    "overflow": (_bytes(safetensors(_entry("F32", [2**32, 2**32], 0, 0))), ""),
    "overlapping": (_bytes(safetensors(_two((4, 12)), bytes(12))), ""),
    "hole": (_bytes(safetensors(_two((12, 20)), bytes(20))), ""),
    "half": (lambda path: (save_file({"a": torch.ones(9)}, path), os.truncate(path, 90)), ""),
    "folder": (lambda path: path.mkdir(), ""),
}
PTH: dict[str, tuple[Maker, str]] = {
    "empty": (_bytes(b""), ""),
    "text": (_bytes(b"weights, honestly"), ""),
    **{
        f"command, protocol {index}": (_pickled(lambda path: Shell(path.parent), index), "")
        for index in range(6)
    },
    "command in an archive": (_in_archive, "posix.system"),
    "command beside weights": (
        _torch(lambda path: {"a": torch.ones(2), "meta": Shell(path.parent)}),
        "posix.system",
    ),
    "getattr": (_torch(lambda _: {"a": Calls(getattr, HistoryBuffer, "__class__")}), "getattr"),
    "eval": (_torch(lambda _: {"a": Calls(eval, "open('ran', 'w')")}), "eval"),
    "bomb": (
        lambda path: repacked(
            _saved(path.with_suffix(".good")),
            path,
            method=zipfile.ZIP_DEFLATED,
            **{"data/0": bytes(200 * 2**20)},
        ),
        "is compressed, which torch.save never does",
    ),
    "tensor larger than its numbers": (_larger, ""),
    "no numbers": (_without_numbers, ""),
    "half": (lambda path: os.truncate(_saved(path), 700), ""),
    "archive of text": (lambda path: zipfile.ZipFile(path, "w").writestr("hello", "weights"), ""),
    "tar": (_tar, ""),
    "script": (lambda path: torch.jit.save(torch.jit.script(nn.ReLU()), path), ""),
    "a number": (_torch(lambda _: 7), ""),
    "numbers by name": (_torch(lambda _: {"a": 7, "b": "text"}), ""),
}
ALL = {(".safetensors", name): row for name, row in SAFETENSORS.items()} | {
    (".pth", name): row for name, row in PTH.items()
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], str]:
    """The message of each reader for each file; one child reads them all."""
    base = tmp_path_factory.mktemp("checkpoints")
    paths = {key: base / f"{index}{key[0]}" for index, key in enumerate(ALL)}
    for key, path in paths.items():
        ALL[key][0](path)

    def read() -> None:
        for index, path in enumerate(paths.values()):
            for name, reader in READERS.items():
                try:
                    reader(path)
                except WsssError as error:
                    print(f"{index} {name}: {' '.join(str(error).split())}", flush=True)

    outcome = in_child(read)
    outcome.done()
    assert not list(base.rglob("ran"))
    assert not (base.parent / "ran").exists()
    messages = {}
    for line in outcome.text.splitlines():
        head, _, text = line.partition(": ")
        if head[:1].isdigit():
            index, _, name = head.partition(" ")
            messages[int(index), name] = text
    return messages


@pytest.mark.parametrize("index", range(len(ALL)), ids=[" ".join(key)[1:] for key in ALL])
def test_every_reader_refuses_bad_weights(reports: dict[tuple[int, str], str], index: int) -> None:
    suffix, piece = list(ALL)[index][0], list(ALL.values())[index][1]
    for reader in READERS:
        report = reports[index, reader]
        assert f"{index}{suffix}: " in report
        assert len(report) < 1000
        if reader in ("release", "backbone") or (reader == "clip" and "compressed" in report):
            assert piece in report


def test_a_good_file_of_each_kind_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    for name in ("a.safetensors", _saved(tmp_path / "a.pth").name):
        assert list(read_weights(tmp_path / name)) == ["a"]
        assert list(read_source(tmp_path / name).tensors) == ["a"]
    torch.save({"a": torch.ones(2)}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    assert list(read_source(tmp_path / "b.pth").tensors) == ["a"]


@pytest.mark.parametrize("kind", ["pipe", "command"])
def test_the_stage_names_weights_that_it_cannot_use(folder: Folder, kind: str) -> None:
    folder.ingest().done()
    weights = folder.base / "clip.pt"
    if kind == "pipe":
        os.mkfifo(weights)
    else:
        torch.save({"a": Shell(folder.base)}, weights)
    config = folder.configure(clip={"pretrained": str(weights)})
    out = folder.base / "cams.h5"
    outcome = wsss("cams", "--manifest", folder.manifest, "--config", config, "--out", out)
    outcome.refused(
        "clip.pt", {"pipe": "is no file", "command": "which is code and no tensor"}[kind]
    )
    assert not out.exists()
