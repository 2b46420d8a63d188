"""What the machine refuses at present is not called damage, and nothing is thrown away for it."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.builders import provenance, write_manifest_folder, write_shard
from tests.machines import open_files_left
from wsss._compat.mmengine_checkpoints import load_mmengine_checkpoint
from wsss.artifacts import hdf5
from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.checkpoint_header import checkpoint_facts, is_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.item_cache import ItemCache
from wsss.artifacts.shard import Item, Shard
from wsss.cams.external.pickle_reader import read_npy
from wsss.clip.weights import read_weights
from wsss.config.safe_yaml import read_yaml
from wsss.data.check.image_headers import present
from wsss.data.datasets.classes import ClassList
from wsss.data.datasets.files import PhotoIndex, read_lines
from wsss.data.datasets.voc import read_annotation
from wsss.data.images.label_png import read_label_png, save_label_png
from wsss.data.images.read import image_size, read_image
from wsss.data.manifest_folder import load
from wsss.errors import ReadError
from wsss.refine.released.reading import read_source
from wsss.score.truth.sbd_masks import read_sbd

CLASSES = ClassList("tiny", ("cat",), ("cat",), ("sky",))
READERS: dict[str, Callable[[Path], object]] = {
    "a.h5": Shard,
    "a.safetensors": load_checkpoint,
    "manifest": load,
    "a.png": read_label_png,
    "a.npy": read_npy,
    "a.pth": load_mmengine_checkpoint,
    "a.xml": read_annotation,
    "a.mat": read_sbd,
}
FURTHER: dict[str, tuple[str, Callable[[Path], object]]] = {
    "facts": ("a.safetensors", checkpoint_facts),
    "origin": ("a.safetensors", is_checkpoint),
    "photo": ("a.png", read_image),
    "size of a photo": ("a.png", image_size),
    "weights": ("bare.safetensors", read_weights),
    "weights by torch": ("a.pth", read_weights),
    "authors' weights": ("bare.safetensors", read_source),
    "listing": ("a.png", lambda path: present([path])),
    "photos of a folder": ("manifest", PhotoIndex),
    "list": ("a.xml", read_lines),
    "configuration": ("a.xml", read_yaml),
}
CASES = {name: (name, reader) for name, reader in READERS.items()} | FURTHER


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_shard(folder / "a.h5", "cams", [Item("a", {"x": np.arange(5)}, key="k")])
    save_checkpoint(folder / "a.safetensors", {"x": torch.ones(2)}, provenance())
    save_file({"x": torch.ones(2)}, folder / "bare.safetensors")
    torch.save({"x": torch.ones(2)}, folder / "a.pth")
    np.save(folder / "a.npy", np.ones(3))
    save_label_png(folder / "a.png", np.zeros((3, 4), np.uint8))
    (folder / "a.xml").write_text("<annotation/>")
    (folder / "a.mat").write_bytes(b"")
    write_manifest_folder(folder / "manifest", CLASSES, [])
    return folder


@pytest.mark.parametrize("case", CASES)
def test_too_many_open_files_are_no_damage(files: Path, case: str) -> None:
    name, read = CASES[case]
    with open_files_left(0), pytest.raises(ReadError) as caught:
        read(files / name)
    assert str(files) in str(caught.value)
    assert "Too many open files; raise the limit on open files (ulimit -n)" in str(caught.value)
    assert "damaged" not in str(caught.value)
    assert not isinstance(caught.value, ArtifactError)  # which caches take for damage


def test_a_disk_that_fails_is_no_damage(tmp_path: Path) -> None:
    broken = tmp_path / "a.png"
    broken.symlink_to("/proc/self/mem")  # whose first byte cannot be read: EIO
    with pytest.raises(ReadError, match=r"a\.png: .*Input/output error; check the disk or"):
        read_label_png(broken)
    (tmp_path / "a.h5").symlink_to("/proc/self/mem")
    with pytest.raises(ReadError, match=r"a\.h5: .*Input/output error"):
        Shard(tmp_path / "a.h5")


def test_too_little_memory_is_no_damage(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", refuse)
    with pytest.raises(ReadError, match=r"a\.png: does not fit into memory; use fewer workers"):
        read_image(files / "a.png")
    monkeypatch.setattr("wsss.artifacts.shard.read_array", refuse)
    with pytest.raises(ReadError, match=r"a\.h5: does not fit into memory"):
        Shard(files / "a.h5")


def test_a_cache_survives_what_the_machine_refuses(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.h5"
    os.link(files / "a.h5", output)
    ItemCache(output, kind="cams").store()
    with open_files_left(0), pytest.raises(ReadError):
        ItemCache(output, kind="cams")
    cache = ItemCache(output, kind="cams")
    assert cache.find("a", "k") is not None
    cache.close()


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Shard]:
    """More than may be open at once."""
    monkeypatch.setattr(hdf5, "_OPEN_FILES", 4)
    paths = [
        write_shard(tmp_path / f"{n}.h5", "cams", [Item("a", {"x": np.full(3000, n)})])
        for n in range(16)
    ]
    with open_files_left(8):
        return [Shard(path, kind="cams") for path in paths]


def test_more_shards_than_files_may_be_open(shards: list[Shard]) -> None:
    def value(index: int) -> int:
        return int(shards[index % 16].read("a").arrays["x"][7])

    with ThreadPoolExecutor(4) as threads:
        started = threading.Barrier(4)
        list(threads.map(lambda _: started.wait(), range(4)))
        with open_files_left(8):
            assert list(threads.map(value, range(64))) == [index % 16 for index in range(64)]
    for shard in shards:
        shard.close()


def test_a_shard_that_was_replaced_while_it_was_closed(shards: list[Shard], tmp_path: Path) -> None:
    write_shard(tmp_path / "0.h5", "cams", [Item("a", {"x": np.full(3000, 99)})])
    with pytest.raises(ReadError, match=r"0\.h5: was replaced meanwhile; run the same command"):
        shards[0].read("a")
    assert shards[15].read("a").arrays["x"][7] == 15
