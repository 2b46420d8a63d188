"""Bad HDF5 files instead of a shard, with digests that match."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from wsss.artifacts.digest import digest_arrays, digest_json
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, Shard, ShardWriter

from .harness import message_in_child

ORIGIN = Provenance(stage="test", config={}, seed=0, code="c", packages={})
ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def good(path: Path) -> Path:
    """A shard as stages write it."""
    with ShardWriter(path, kind="cams", ids=["a"], provenance=ORIGIN) as writer:
        writer.add(Item("a", {"cam": ARRAY}, {"classes": [1]}, "key"))
    return path


def seal(file: h5py.File, entries: Any) -> None:
    """Replace the index of a file, with matching digests."""
    index = "\n".join(json.dumps(entry, sort_keys=True) for entry in entries).encode()
    if "index" in file:
        del file["index"]
    file["index"] = np.frombuffer(index, np.uint8)
    root = _said(file)
    del root["checksum"]
    say(file, root | {"checksum": digest_json([root, index.decode()])})


def _said(file: h5py.File) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(file["about"][()].tobytes())
    return facts


def say(file: h5py.File, about: dict[str, Any]) -> None:
    """Replace the description of a file."""
    del file["about"]
    file["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)


def _saying(**changes: Any) -> Callable[[Path], None]:
    return _edited(lambda file: say(file, _said(file) | changes))


def entry(array: np.ndarray = ARRAY, **changes: Any) -> dict[str, Any]:
    """The entry of the item in the index."""
    arrays = {"cam": [array.dtype.str, list(array.shape)]}
    fields = {"id": "a", "key": "", "attrs": {}, "arrays": arrays, "digest": ""}
    return (
        fields | ({"digest": digest_arrays({"cam": array})} if array.size < 10**6 else {}) | changes
    )


def _edited(edit: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5py.File(good(path), "r+") as file:
            edit(file)

    return make


def _placed(store: Callable[[h5py.File], object], *entries: Any) -> Callable[[Path], None]:
    def edit(file: h5py.File) -> None:
        del file["items/0000000/cam"]
        store(file)
        seal(file, list(entries) or [entry()])

    return _edited(edit)


def _elsewhere(path: Path) -> Path:
    other = path.with_suffix(".other")
    with h5py.File(other, "w") as file:
        file["cam"] = ARRAY
    return other


def _external(path: Path) -> None:
    link = h5py.ExternalLink(str(_elsewhere(path)), "/cam")
    _placed(lambda file: file.__setitem__("items/0000000/cam", link))(path)


def _virtual(path: Path) -> None:
    layout = h5py.VirtualLayout(ARRAY.shape, "f4")
    layout[:] = h5py.VirtualSource(str(_elsewhere(path)), "cam", shape=ARRAY.shape)
    _placed(lambda file: file["items/0000000"].create_virtual_dataset("cam", layout))(path)


def _raw(path: Path) -> None:
    secret = path.with_suffix(".secret")
    secret.write_bytes(ARRAY.tobytes())
    _placed(
        lambda file: file["items/0000000"].create_dataset(
            "cam", ARRAY.shape, "f4", external=[(str(secret), 0, ARRAY.nbytes)]
        )
    )(path)


HUGE: list[int] = [2**20, 2**20]
ZEROS = np.zeros((3, 4), np.float32)


def _value(value: object) -> Callable[[Path], None]:
    """Another value instead of the array."""
    return _placed(lambda file: file.__setitem__("items/0000000/cam", value))


def _dataset(*entries: Any, **options: Any) -> Callable[[Path], None]:
    """Another data set instead of the array."""
    return _placed(lambda f: f["items/0000000"].create_dataset("cam", **options), *entries)


def _indexed(*entries: Any) -> Callable[[Path], None]:
    """A good shard with other entries in its index."""
    return _edited(lambda file: seal(file, entries))


FOREIGN = "is stored in a way that ours are not"
FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such shard; run the stage"),
    "empty": (lambda path: path.touch(), "damaged or no shard"),
    "text": (lambda path: path.write_text("hello"), "damaged or no shard"),
    "pipe": (os.mkfifo, "is no regular file"),
    "folder": (lambda path: path.mkdir(), "is no regular file"),
    "half": (lambda path: os.truncate(good(path), 900), "damaged or no shard"),
    "no shard": (lambda path: h5py.File(path, "w").close(), "is not a finished shard"),
    "format 10^9": (_saying(format=10**9), "has the format 1000000000"),
    "format in words": (_saying(format="two"), "has the format two"),
    "another index": (
        _edited(lambda file: file["index"].__setitem__(0, 32)),
        "its index does not match its digest",
    ),
    "external link": (_external, "leads elsewhere"),
    "soft link": (_value(h5py.SoftLink("/index")), "leads elsewhere"),
    "virtual": (_virtual, FOREIGN),
    "raw file": (_raw, FOREIGN),
    "another filter": (_dataset(data=ZEROS, compression="lzf"), FOREIGN),
    "a terabyte of nothing": (
        _dataset(entry(arrays={"cam": ["<f4", HUGE]}), shape=HUGE, dtype="f4", chunks=(64, 64)),
        "of which 0 bytes are stored",
    ),
    "text as array": (_dataset(data="hello"), "is no array of numbers"),
    "group as array": (
        _placed(lambda file: file.create_group("items/0000000/cam")),
        "is no array of numbers",
    ),
    "other shape": (_value(ZEROS[:2]), "expected <f4 (3, 4)"),
    "other values": (_value(ZEROS), "does not match its digest"),
    "no array": (_placed(lambda file: None), "is damaged"),
    "index of a list": (_indexed([]), "is damaged"),
    "index of a number": (_indexed(7), "is damaged"),
    "index without digest": (
        _indexed({"id": "a", "key": "", "attrs": {}, "arrays": {}}),
        "damaged",
    ),
    "id of a list": (_indexed(entry(id=[1])), "is damaged"),
    "arrays of a text": (_indexed(entry(arrays="cam")), "is damaged"),
    "array without shape": (_indexed(entry(arrays={"cam": 3})), "is damaged"),
    "a way out": (_indexed(entry(arrays={"../../index": ["|u1", [3]]})), "is damaged"),
    "provenance of another kind": (
        _edited(lambda file: (say(file, _said(file) | {"provenance": "{}"}), seal(file, []))),
        "is damaged",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_shard_is_refused(tmp_path: Path, name: str) -> None:
    make, message = FILES[name]
    path = tmp_path / "1-of-1.h5"
    make(path)

    def read() -> None:
        with Shard(path, kind="cams") as shard:
            list(shard)

    text = message_in_child(read)
    assert "1-of-1.h5: " in text
    assert message in text
    assert "rerun" in text or "run the stage" in text
    assert len(text) < 1000
