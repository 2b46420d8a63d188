"""Bad seed files: named with the cause, none of their code is run, memory stays bounded."""

import contextlib
import functools
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import clip_es_config
from wsss.cams.external.pickle_reader import SeedError, read_npy
from wsss.cams.external.source import ExternalSource
from wsss.data.images.label_png import save_label_png
from wsss.data.manifest import Sample

from .conftest import Folder, photo
from .harness import in_child, wsss
from .payloads import Calls, Shell, maps, nested_key, nested_list, npy, pickled, png

Maker = Callable[[Path], object]
SIZE = (20, 30)


def _raw(content: bytes, **header: str) -> Maker:
    return lambda path: npy(path, content, **header)


def _bytes(content: bytes) -> Maker:
    return lambda path: path.write_bytes(content)


def _wrapped(value: object) -> Maker:
    """As np.save writes a dictionary."""

    def make(path: Path) -> None:
        box = np.empty((), object)
        box[()] = value
        pickled(box)(path)

    return make


def _shell(protocol: int) -> Maker:
    return lambda path: pickled({0: Shell(path.parent)}, protocol)(path)


def _in_a_tensor(path: Path) -> None:
    inner = pickle.dumps(Shell(path.parent), protocol=2)
    pickled({0: Calls(torch.storage._load_from_bytes, inner)})(path)


def _chain(path: Path) -> None:
    """An allowed function passes the bytes of a second pickle to another."""
    inner = pickle.dumps(Shell(path.parent), protocol=0)
    pickled({0: Calls(pickle.loads, Calls(bytes, inner))})(path)


def _lying_array(shape: tuple[int, ...]) -> Maker:
    kind = np.dtype("f4")

    def make(path: Path) -> None:
        lie = _State(shape, kind, b"\0" * 16)
        pickled({0: lie})(path)

    return make


class _State:
    """An array whose shape is not that of its bytes."""

    def __init__(self, shape: tuple[int, ...], kind: np.dtype[Any], raw: object) -> None:
        self._state = (1, shape, kind, False, raw)

    def __reduce__(self) -> Any:
        empty = np.zeros(0).__reduce__()
        return empty[0], empty[1], self._state


def _rebuilt_tensor(size: tuple[int, ...], stride: tuple[int, ...]) -> Maker:
    def make(path: Path) -> None:
        stored = torch.zeros(4).storage()
        rebuild = Calls(torch._utils._rebuild_tensor_v2, stored, 0, size, stride, False, {})
        pickled({"keys": rebuild, "high_res": np.zeros((1, *SIZE), np.float32)}, 2)(path)

    return make


def _strides(path: Path) -> None:
    """Terabytes of one byte, by strides of 0."""
    pickled({0: Calls(np.ndarray, (10**6, 10**6), "u1", b"x", 0, (0, 0))})(path)


GOOD = maps(SIZE)
NAN = GOOD[0].copy()
NAN[3, 4] = np.nan
BUFFER = io.BytesIO()
np.save(BUFFER, np.array(GOOD, dtype=object))

NPY: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "missing": (lambda path: None, ("no such file",)),
    "pipe": (os.mkfifo, ("no such file",)),
    "folder": (lambda path: path.mkdir(), ("no such file",)),
    "device": (lambda path: path.symlink_to("/dev/zero"), ("no such file",)),
    "empty": (_bytes(b""), ("is damaged or no .npy file",)),
    "text": (_bytes(b"hello " * 50), ("is damaged or no .npy file",)),
    "truncated": (_bytes(BUFFER.getvalue()[:600]), ("is damaged or no .npy file",)),
    "other version": (_bytes(b"\x93NUMPY\x09\x00" + bytes(200)), ("is damaged",)),
    "broken header": (_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': '''''\n\n"), ("is damaged",)),
    "deep header": (_bytes(b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 8192), ("is damaged",)),
    "header of a terabyte": (
        _raw(bytes(64), kind="<f4", shape="(500000, 500000)"),
        ("its header says (500000, 500000) of float32, 64 bytes follow",),
    ),
    "negative header": (_raw(bytes(64), kind="<f4", shape="(-4, -4)"), ("its header says",)),
    "NaN": (_wrapped({0: NAN, 1: GOOD[1]}), ("class 0 has values from nan to nan",)),
    "infinity": (_wrapped({0: np.full_like(GOOD[0], np.inf)}), ("class 0 has values from",)),
    "negative": (_wrapped({0: GOOD[0] - 1}), ("class 0 has values from -", "expected 0 … 1")),
    "logits": (_wrapped({0: GOOD[0] * 30}), ("class 0 has values from 0", "expected 0 … 1")),
    "wrong size": (_wrapped({0: GOOD[0][:9]}), ("is of size (9, 30), its image is (20, 30)",)),
    "text as map": (_wrapped({0: "map"}), ("class 0 holds str, expected numbers [H, W]",)),
    "complex": (_wrapped({0: GOOD[0].astype(np.complex64)}), ("refused, since", "type 'c8'")),
    "structured": (_wrapped({0: np.zeros(3, [("a", "f4")])}), ("refused, since",)),
    "dates": (_wrapped({0: np.zeros(3, "M8[s]")}), ("refused, since", "type 'M8'")),
    "objects": (_wrapped({0: np.array([1, {}], object)}), ("refused, since", "of objects")),
    "list of lists": (_wrapped({0: [[0.1, 0.2]]}), ("refused, since", "lists inside of lists")),
    "other words": (_wrapped({"cam": GOOD[0]}), ("found keys ['cam']", "{class: [H, W]}")),
    "a bare array": (_raw(bytes(64), kind="<f4", shape="(16,)"), ("found ndarray; expected",)),
    "class 10^400": (_wrapped({10**400: GOOD[0]}), ("numbers a class beyond 9999",)),
    "classes that fit no map": (
        _wrapped({"keys": np.arange(3), "high_res": np.zeros((2, *SIZE), np.float32)}),
        ("found keys ['keys', 'high_res']",),
    ),
    **{
        f"command, protocol {index}": (_shell(index), ("refused, since", "system"))
        for index in range(6)
    },
    "command in a tensor": (_in_a_tensor, ("",)),
    "chain": (_chain, ("refused, since", "which no array needs")),
    "getattr": (_wrapped({0: Calls(getattr, 1, "real")}), ("builtins.getattr",)),
    "imports": (_wrapped({0: Calls(__import__, "os")}), ("builtins.__import__",)),
    "numpy's own loader": (_wrapped({0: Calls(np.load, "x.npy")}), ("refused, since",)),
    "a partial": (_wrapped({0: functools.partial(os.system, "touch ran")}), ("functools.partial",)),
    "terabytes of one byte": (_strides, ("refused, since", "calls numpy.ndarray itself")),
    "array larger than its bytes": (
        _lying_array((10**6, 10**6)),
        ("an array says (1000000, 1000000) of float32, but has 16 bytes",),
    ),
    "array of no shape": (_lying_array((-1, 4)), ("an array's shape is",)),
    "tensor larger than its numbers": (
        _rebuilt_tensor((10**6, 10**6), (10**6, 1)),
        ("a tensor says (1000000, 1000000), but is not stored contiguously",),
    ),
    "tensor of one number": (_rebuilt_tensor((10**6,), (0,)), ("but is not stored contiguously",)),
    "10^5 lists": (_raw(nested_list(100_000)), ("refused, since",)),
    "10^6 tuples as key": (_raw(nested_key(1_000_000)), ("more instructions than arrays need",)),
    "place 2^31": (
        _raw(b"\x80\x04]r" + struct.pack("<I", 2**31) + b"."),
        ("it stores an object at memo index 2147483648",),
    ),
    "bytes beyond the file": (
        _raw(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x."),
        ("is damaged",),
    ),
    "extension register": (_raw(b"\x80\x02\x82\x01."), ("the instruction EXT1",)),
    "persistent id": (_raw(b"\x80\x02K\x01Q."), ("the instruction BINPERSID",)),
    "new object": (_raw(b"\x80\x04cos\nsystem\n)\x81."), ("the instruction NEWOBJ",)),
    "no end": (_raw(b"\x80\x04}"), ("is damaged",)),
}

PNG: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "missing.": (lambda path: None, ("no such file",)),
    "colours": (_bytes(png(30, 20)), ("holds colours (RGB), expected label indices",)),
    "16 bit": (_bytes(png(30, 20, depth=16, colour=0)), ("expected label indices",)),
    "bits": (_bytes(png(32, 20, depth=1, colour=0)), ("expected label indices",)),
    "JPEG": (photo, ("is damaged or no PNG",)),
    "bomb": (_bytes(png(100_000, 100_000, colour=0, rows=b"")), ("100000 x 100000 pixels",)),
    "wrong size.": (
        lambda path: save_label_png(path, np.zeros((9, 9), np.uint8)),
        ("is of size (9, 9), its image is (20, 30)",),
    ),
    "truncated.": (_bytes(png(30, 20, colour=0)[:-20]), ("is damaged",)),
}
ALL = {name: ("npy", *row) for name, row in NPY.items()} | {
    name: ("png", *row) for name, row in PNG.items()
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The message for each file, next to a good one; one child reads them all."""
    base = tmp_path_factory.mktemp("seeds")
    for index, (layout, make, _) in enumerate(ALL.values()):
        folder = base / str(index)
        folder.mkdir()
        np.save(folder / "good.npy", GOOD, allow_pickle=True)
        save_label_png(folder / "good.png", np.zeros(SIZE, np.uint8))
        make(folder / f"bad.{layout}")
    samples = [
        Sample(name, "train", Path(f"{name}.jpg"), *reversed(SIZE), "digest", (0, 1))
        for name in ("good", "bad")
    ]

    def read() -> None:
        for index, (layout, _, _) in enumerate(ALL.values()):
            external = {"path": str(base / str(index)), "layout": layout}
            config = clip_es_config({"cams": {"source": "external", "external": external}})
            try:
                list(ExternalSource(config.cams).maps(samples))
            except SeedError as error:
                print(f"{index}: {' '.join(str(error).split())}", flush=True)

    outcome = in_child(read)
    outcome.done()
    assert not list(base.rglob("ran"))
    lines = [line.partition(": ") for line in outcome.text.splitlines() if line[0].isdigit()]
    return {list(ALL)[int(index)]: text for index, _, text in lines}


@pytest.mark.parametrize("name", ALL)
def test_a_bad_seed_file_is_named(reports: dict[str, str], name: str) -> None:
    assert "1 of 2 files cannot be used" in reports[name]
    for piece in (f"bad.{ALL[name][0]}: ", *ALL[name][2]):
        assert piece in reports[name], reports[name]
    assert len(reports[name]) < 1500


@pytest.mark.parametrize(
    ("content", "code", "piece"),
    [
        ({0: GOOD[0], 1000: GOOD[1]}, 0, ""),  # a class of another list is ignored
        ({0: Calls(os.system, "touch ran")}, 1, "good.npy: refused, since"),
    ],
    ids=["class of another list", "command"],
)
def test_the_stage_reports_bad_seeds(
    folder: Folder, content: dict[int, object], code: int, piece: str
) -> None:
    folder.ingest().done()
    seeds = folder.base / "seeds"
    seeds.mkdir()
    np.save(seeds / "good.npy", content, allow_pickle=True)
    cams = {"splits": ["train"], "source": "external", "external": {"path": str(seeds)}}
    out = folder.base / "cams.h5"
    config = folder.configure(cams=cams)
    outcome = wsss("cams", "--manifest", folder.manifest, "--config", config, "--out", out)
    assert outcome.code == code, outcome.text
    assert "Traceback" not in outcome.text
    assert piece in outcome.text
    assert out.exists() == (code == 0)


@pytest.mark.parametrize("protocol", range(6))
def test_dictionaries_of_every_protocol_are_rebuilt(tmp_path: Path, protocol: int) -> None:
    content = {
        3: GOOD[0],
        4: GOOD[0].astype(">f2")[::-1],
        5: np.asfortranarray(GOOD[1].astype(np.float64)),
        "keys": [1, 2],
        "ids": torch.tensor([7, 8]),
        "share": np.float32(0.25),
        "some": torch.arange(12).reshape(3, 4)[1],
    }
    pickled(content, protocol)(tmp_path / "a.npy")
    actual = read_npy(tmp_path / "a.npy")
    assert list(actual) == list(content)
    for name, value in content.items():
        np.testing.assert_array_equal(actual[name], np.asarray(value))


def test_reading_many_bad_files_does_not_change_the_reader(tmp_path: Path) -> None:
    """The same process reads a good file after each bad one."""
    np.save(tmp_path / "good.npy", GOOD, allow_pickle=True)
    for index, (make, _) in enumerate(NPY.values()):
        make(tmp_path / f"{index}.npy")

    def read() -> None:
        for index in range(len(NPY)):
            path = tmp_path / f"{index}.npy"
            if path.is_file():
                with contextlib.suppress(SeedError):
                    read_npy(path)
            np.testing.assert_array_equal(read_npy(tmp_path / "good.npy")[0], GOOD[0])

    in_child(read).done()
