"""Shards: round trip, completeness, damage, order, reuse."""

from pathlib import Path

import numpy as np
import pytest

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.item_cache import ItemCache
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, Shard, ShardWriter
from wsss.artifacts.stage import STAGES
from wsss.config.model import Config

IDS = ["plain", "with space", "ünïcode/🐈"]


@pytest.fixture
def origin() -> Provenance:
    values = STAGES["refine_train"].select(Config())
    return STAGES["refine_train"].provenance(values | {"seed": 3})


def _item(image: str) -> Item:
    random = np.random.default_rng(len(image))
    arrays = {
        "cam": random.random((2, 40, 30)).astype(np.float16),
        "empty": np.zeros((0, 3), np.float32),
    }
    return Item(image, arrays, {"classes": [1, 2], "size": [93, 141]}, key=f"key of {image}")


def _write(path: Path, origin: Provenance, order: list[str] = IDS) -> None:
    with ShardWriter(path, kind="cams", ids=IDS, provenance=origin) as writer:
        for image in order:
            writer.add(_item(image))


def test_round_trip(tmp_path: Path, origin: Provenance) -> None:
    _write(tmp_path / "a.h5", origin)
    with Shard(tmp_path / "a.h5", kind="cams") as shard:
        assert shard.ids == IDS
        assert shard.provenance == origin
        for item, image in zip(shard, IDS, strict=True):
            expected = _item(image)
            assert item.attrs == expected.attrs
            assert item.key == expected.key
            for name, array in expected.arrays.items():
                np.testing.assert_array_equal(item.arrays[name], array)
                assert item.arrays[name].dtype == array.dtype


def test_a_path_may_be_a_text(tmp_path: Path, origin: Provenance) -> None:
    """As `wsss.Shard` is called by hand, also with a file of another kind."""
    _write(tmp_path / "a.h5", origin)
    with Shard(f"{tmp_path}/a.h5", kind="cams") as shard:
        assert (shard.ids, shard.path) == (IDS, tmp_path / "a.h5")
    (tmp_path / "segmenter.safetensors").write_bytes(b"\x08" + bytes(99))
    for name, message in (("segmenter.safetensors", "is damaged or no shard"), ("b", "no such")):
        with pytest.raises(ArtifactError, match=message):
            Shard(f"{tmp_path}/{name}")


def test_bytes_do_not_depend_on_the_order_of_writing(tmp_path: Path, origin: Provenance) -> None:
    _write(tmp_path / "a.h5", origin)
    _write(tmp_path / "b.h5", origin, IDS[::-1])
    with Shard(tmp_path / "a.h5") as a, Shard(tmp_path / "b.h5") as b:
        assert a.content == b.content
        assert a.ids == b.ids


def test_content_digest_sees_every_part(tmp_path: Path, origin: Provenance) -> None:
    digests = set()
    for name, item in {
        "same": Item("a", {"x": np.zeros(3)}, {"k": 1}),
        "value": Item("a", {"x": np.ones(3)}, {"k": 1}),
        "type": Item("a", {"x": np.zeros(3, np.float32)}, {"k": 1}),
        "shape": Item("a", {"x": np.zeros((3, 1))}, {"k": 1}),
        "attrs": Item("a", {"x": np.zeros(3)}, {"k": 2}),
    }.items():
        with ShardWriter(tmp_path / name, kind="k", ids=["a"], provenance=origin) as writer:
            writer.add(item)
        with Shard(tmp_path / name) as shard:
            digests.add(shard.content)
    assert len(digests) == 5


def test_missing_item_is_an_error_and_leaves_nothing(tmp_path: Path, origin: Provenance) -> None:
    def incomplete() -> None:
        with ShardWriter(tmp_path / "a.h5", kind="cams", ids=IDS, provenance=origin) as writer:
            writer.add(_item("plain"))

    with pytest.raises(ArtifactError, match="2 images were not written"):
        incomplete()
    assert list(tmp_path.iterdir()) == []


def test_item_twice_or_unknown_is_refused(tmp_path: Path, origin: Provenance) -> None:
    def twice() -> None:
        with ShardWriter(tmp_path / "a.h5", kind="cams", ids=IDS, provenance=origin) as writer:
            writer.add(_item("plain"))
            writer.add(_item("plain"))

    with pytest.raises(ValueError, match="came twice"):
        twice()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path: Path, origin: Provenance, share: float) -> None:
    path = tmp_path / "a.h5"
    _write(path, origin)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtifactError, match=r"a\.h5"), Shard(path) as shard:
        list(shard)


def test_every_flipped_byte_of_an_array_is_noticed(tmp_path: Path, origin: Provenance) -> None:
    path = tmp_path / "a.h5"
    with ShardWriter(path, kind="k", ids=["a"], provenance=origin) as writer:
        writer.add(Item("a", {"x": np.arange(7, dtype=np.float64) + 0.123}))
    content = path.read_bytes()
    begin = content.index(np.float64(0.123).tobytes())
    for offset in range(0, 56, 5):
        damaged = bytearray(content)
        damaged[begin + offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="does not match its digest"), Shard(path) as shard:
            shard.read("a")


def test_shard_of_another_kind_is_refused(tmp_path: Path, origin: Provenance) -> None:
    _write(tmp_path / "a.h5", origin)
    with pytest.raises(ArtifactError, match="holds 'cams', expected 'masks'"):
        Shard(tmp_path / "a.h5", kind="masks")


def test_cached_items_have_keys_and_survive_deletion(tmp_path: Path, origin: Provenance) -> None:
    path = tmp_path / "a.h5"
    _write(path, origin)
    ItemCache(path, kind="cams").store()
    path.unlink()  # what a workflow engine does before it reruns a rule
    cache = ItemCache(path, kind="cams")
    item = cache.find("plain", "key of plain")
    np.testing.assert_array_equal(item.arrays["cam"], _item("plain").arrays["cam"])
    assert cache.find("plain", "another key") is None
    assert cache.find("unknown", "key of plain") is None


def test_damaged_cached_shard_is_ignored(tmp_path: Path, origin: Provenance) -> None:
    path = tmp_path / "a.h5"
    _write(path, origin)
    ItemCache(path, kind="cams").store()
    path.unlink()
    (tmp_path / ".cache" / "a.h5").write_bytes(b"nothing")
    assert ItemCache(path, kind="cams").find("plain", "key of plain") is None
