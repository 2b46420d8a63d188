"""The stage: equal content whatever the batch, order, threads and shards; reuse; precision."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.artifacts.shard import Item, Shard
from wsss.cams import stage
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.ingest.stage import ingest

SIZES = [(40, 56), (56, 40), (40, 56), (33, 47), (90, 90), (8, 70), (40, 56)]
TAGS = ["cat", "cat;dog", "dog", "bird;cat;dog", "bird", "dog", "bird"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    rows = ["image,tags"]
    for number, (size, tags) in enumerate(zip(SIZES, TAGS, strict=True)):
        pixels = random.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((size[1] * 2, size[0] * 2)).save(folder / f"p {number}.png")
        rows.append(f"p {number}.png,{tags}")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n")
    return folder


def _config(photos: Path, **compute: int) -> Config:
    return from_mapping(
        {
            "data": {
                "kind": "folder",
                "root": str(photos),
                "val_list": "",
                "backgrounds": ["grass"],
            },
            "cams": {"splits": ["train"]},
            "compute": {"device": "cpu", "workers": 1} | compute,
        }
    )


def _ingest(config: Config, out: Path) -> None:
    ingest(out, variant=config.variant, data=config.data, compute=config.compute)


@pytest.fixture(scope="module")
def manifest(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest")
    _ingest(_config(photos), folder)
    return folder


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _run(config: Config, manifest: Path, folder: Path, shards: int = 1) -> dict[str, Item]:
    items = {}
    for number in range(1, shards + 1):
        out = folder / f"{number}-of-{shards}.h5"
        stage.run(config, manifest, "train", (number, shards), out, folder / "cache")
        with Shard(out, kind="cams") as shard:
            items |= {item.id: item for item in shard}
    return items


def _bytes(items: dict[str, Item]) -> dict[str, list[bytes]]:
    return {
        name: [item.arrays[key].tobytes() for key in sorted(item.arrays)]
        for name, item in sorted(items.items())
    }


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_content_is_the_same_however_the_work_is_cut(
    photos: Path, manifest: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    expected = _bytes(_run(_config(photos, batch=1), manifest, tmp_path / "a"))
    assert len(expected) == len(SIZES)
    torch.set_num_threads(2)
    for name, batch, shards in (("b", 3, 1), ("c", 8, 3), ("d", 1, 5)):
        assert (
            _bytes(_run(_config(photos, batch=batch), manifest, tmp_path / name, shards))
            == expected
        )


def test_item_holds_present_classes_on_the_grid(
    photos: Path, manifest: Path, tmp_path: Path
) -> None:
    items = _run(_config(photos), manifest, tmp_path)
    for item in items.values():
        cam, refined = item.arrays["cam"], item.arrays["refined"]
        height, width = item.attrs["size"]
        assert item.attrs["grid"] == [-(-height // 8), -(-width // 8)]
        assert cam.shape == refined.shape == (len(item.attrs["classes"]), *item.attrs["grid"])
        assert cam.dtype == refined.dtype == np.float16
        for maps in (cam, refined):
            assert maps.min() >= 0
            assert maps.max() <= 1
            largest = maps.reshape(len(maps), -1).max(1)
            assert ((largest > 0.99) | (largest == 0)).all()


def test_unchanged_images_are_taken_over_and_new_ones_computed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    listed = (mine / "tags.csv").read_text().splitlines()
    new = mine / f"p {len(SIZES) - 1}.png"
    new.rename(tmp_path / new.name)
    (mine / "tags.csv").write_text("\n".join(listed[:-1]) + "\n")
    _ingest(_config(mine), tmp_path / "manifest")
    first = _run(_config(mine), tmp_path / "manifest", tmp_path / "cams")
    (tmp_path / "cams/1-of-1.h5").unlink()
    (tmp_path / new.name).rename(new)
    (mine / "tags.csv").write_text("\n".join(listed) + "\n")
    _ingest(_config(mine), tmp_path / "manifest")
    computed: list[str] = []
    original = stage.make_source

    def spy(*arguments: object) -> object:
        source = original(*arguments)  # type: ignore[arg-type]
        maps = source.maps
        source.maps = lambda samples: (computed.extend(s.id for s in samples), maps(samples))[1]  # type: ignore[method-assign]
        return source

    monkeypatch.setattr(stage, "make_source", spy)
    second = _run(_config(mine), tmp_path / "manifest", tmp_path / "cams")
    assert len(computed) == 1
    assert set(second) - set(first) == set(computed)
    assert {k: v for k, v in _bytes(second).items() if k in first} == _bytes(first)


def test_variant_and_options_change_the_maps(photos: Path, manifest: Path, tmp_path: Path) -> None:
    usual = _run(_config(photos), manifest, tmp_path / "a")
    plain = _config(photos).model_copy(
        update={"cams": from_mapping({"cams": {"affinity": {"enabled": False}}}).cams}
    )
    bare = _run(plain, manifest, tmp_path / "b")
    assert all("refined" not in item.arrays for item in bare.values())
    for name, item in bare.items():
        # Attention that nobody asks for takes another kernel, which rounds differently.
        np.testing.assert_allclose(item.arrays["cam"], usual[name].arrays["cam"], atol=2e-3)
