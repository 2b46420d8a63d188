"""What the counting of all products shares."""

from pathlib import Path

import numpy as np
import pytest

from tests.builders import write_shard
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Item
from wsss.score.metrics.counting import Part


def _write(path: Path, value: int) -> None:
    write_shard(path, "masks", [Item("a", {"label": np.full((2, 2), value, np.uint8)})])


def test_a_shard_stays_open_until_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "1-of-1.h5"
    _write(path, 1)
    first = Part(path, ()).open("masks")
    assert Part(path, ()).open("masks") is first
    _write(path, 2)
    assert Part(path, ()).open("masks").read("a").arrays["label"].max() == 2
    with pytest.raises(ArtifactError, match="expected 'cams'"):
        Part(path, ()).open("cams")
    path.unlink()
    with pytest.raises(ArtifactError, match="no such shard"):
        Part(path, ()).open("masks")
