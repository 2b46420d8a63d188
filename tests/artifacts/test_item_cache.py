"""Items of earlier runs, also of runs with another number of shards."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.builders import provenance
from wsss.artifacts.item_cache import write_items
from wsss.artifacts.shard import Item, Shard
from wsss.data.manifest import Manifest, Sample

IMAGES = Manifest(
    tuple(Sample(f"image {n}", "train", Path(f"{n}.jpg"), 2, 2, f"{n:064x}", ()) for n in range(24))
)


def write(folder: Path, part: int, count: int, name: str = "", kind: str = "cams") -> list[str]:
    """Write a part as a stage does; gives the images that were computed."""
    samples = {s.id: s for s in IMAGES.shard(part, count)}
    computed: list[str] = []

    def compute(missing: Sequence[str]) -> Iterator[Item]:
        for image in missing:
            computed.append(image)
            level = np.full((1, 2, 2), int(samples[image].digest, 16), np.uint8)
            yield Item(image, {"cam": level}, {}, samples[image].digest)

    write_items(
        folder / (name or f"{part}-of-{count}.h5"),
        kind=kind,
        keys={image: sample.digest for image, sample in samples.items()},
        provenance=provenance(),
        compute=compute,
        description="test",
    )
    return computed


def cached(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / ".cache").glob("*.h5"))


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3), (4, 2)])
def test_another_number_of_shards_takes_every_item_over(
    tmp_path: Path, before: int, after: int
) -> None:
    assert sum(len(write(tmp_path, part, before)) for part in range(1, before + 1)) == len(IMAGES)
    for part in range(1, after + 1):
        assert write(tmp_path, part, after) == []
        with Shard(tmp_path / f"{part}-of-{after}.h5", kind="cams") as shard:
            samples = tuple(IMAGES.shard(part, after))
            assert shard.ids == [sample.id for sample in samples]
            for sample in samples:
                assert (shard.read(sample.id).arrays["cam"] == int(sample.digest, 16)).all()
    # The others have had their use: the cache does not grow with every number that is tried.
    assert cached(tmp_path) == [f"{part}-of-{after}.h5" for part in range(1, after + 1)]


def test_the_old_shards_stay_until_all_new_ones_are_written(tmp_path: Path) -> None:
    write(tmp_path, 1, 1)
    write(tmp_path, 1, 2)
    assert cached(tmp_path) == ["1-of-1.h5", "1-of-2.h5"]
    (tmp_path / "1-of-1.h5").unlink()  # as the engine or a person may do
    assert write(tmp_path, 2, 2) == []


def test_items_of_another_kind_or_of_a_damaged_shard_are_left(tmp_path: Path) -> None:
    write(tmp_path, 1, 1, kind="masks")
    assert len(write(tmp_path, 1, 2)) == len(IMAGES.shard(1, 2))
    (tmp_path / ".cache/1-of-1.h5").write_bytes(b"no shard")
    assert len(write(tmp_path, 2, 2)) == len(IMAGES.shard(2, 2))
    assert write(tmp_path, 1, 2) == []


def test_a_shard_that_is_no_part_has_its_own_items_alone(tmp_path: Path) -> None:
    write(tmp_path, 1, 1)
    assert len(write(tmp_path, 1, 1, "mine.h5")) == len(IMAGES)
    assert write(tmp_path, 1, 1, "mine.h5") == []
    assert cached(tmp_path) == ["1-of-1.h5", "mine.h5"]
