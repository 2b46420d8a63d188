"""A manifest and CAM shards of a few images, without photos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.builders import SmallRun, provenance, write_shard
from wsss.artifacts.shard import Item
from wsss.data.manifest import Sample

NAMES = ("cat", "boat", "tree")


class CamRun(SmallRun):
    """What ingest and the CAM stage would have written."""

    names = NAMES

    def cam(self, sample: Sample, *, affinity: bool = True, key: str = "made") -> Item:
        values = np.random.default_rng(len(sample.id)).random((2, len(sample.tags), 4, 5))
        arrays = {"cam": values[0].astype(np.float16)}
        if affinity:
            arrays["cam_affinity"] = values[1].astype(np.float16)
        attrs = {
            "classes": list(sample.tags),
            "grid": [4, 5],
            "size": [sample.height, sample.width],
        }
        return Item(sample.id, arrays, attrs, key)

    def write_cams(self, name: str, items: Sequence[Item], kind: str = "cams") -> Path:
        origin = provenance("cams", weights={"clip": "abc"})
        return write_shard(self.folder / "cams" / f"{name}.h5", kind, items, origin)
