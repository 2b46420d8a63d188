"""Photos and the masks to learn as an endless, seekable stream of augmented training samples."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch.utils.data import Sampler

from wsss._compat.paused_collection import without_requested_collection
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.compute import seeding
from wsss.data.images.read import read_image
from wsss.data.manifest_folder import load
from wsss.labels.ignore import IGNORED
from wsss.retrain.loader import one_sentence
from wsss.retrain.mm import (
    DATA_SAMPLERS,
    DATASETS,
    BaseSegDataset,
    base_dataset,
    get_dist_info,
)

CORRECTED = "corrected_masks"
"""Kind of a shard of corrected masks."""
_CACHE_BYTES = 512 * 2**20
_BYTES_PER_PIXEL = 4  # RGB and the mask


@DATASETS.register_module()
class PseudoMaskDataset(BaseSegDataset):  # type: ignore[misc]
    """An mmsegmentation data set over a manifest and mask shards.

    ``dataset[p]`` is the sample at position ``p`` of an endless stream: every epoch is a new order
    of the images, and order and augmentation depend on (seed, p) alone. A small set is decoded
    once, before workers start, and kept in memory.

    Args:
        masks: shards that together hold every training image.
        max_pixels: passed to `read_image`.
        kind: of the shards; ``truth_masks`` for full supervision.
        corrected: shard of kind ``corrected_masks``, whose masks stand in for those of the same
            images; empty: none.
        cache_bytes: the set is kept decoded in memory if it needs no more than this.
        rest: arguments of mmsegmentation's data sets, e.g. ``pipeline`` and ``metainfo``.

    Raises:
        ArtifactError: a shard is of another kind, or a training image has no mask.
    """

    def __init__(
        self,
        *,
        manifest_dir: str,
        masks: Sequence[str],
        seed: int,
        max_pixels: int,
        kind: str = "masks",
        corrected: str = "",
        cache_bytes: int = _CACHE_BYTES,
        **rest: Any,
    ) -> None:
        self._manifest_dir = Path(manifest_dir)
        self._kinds = dict.fromkeys(map(str, masks), kind)
        if corrected:
            self._kinds[corrected] = CORRECTED
        self._seed = seed
        self._max_pixels = max_pixels
        self._cache_bytes = cache_bytes
        self._cache: list[tuple[np.ndarray, np.ndarray]] = []
        self._order: seeding.EpochOrder | None = None
        self._open: tuple[int, dict[str, Shard]] = (-1, {})
        super().__init__(**rest)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One record per image: photo, shard and size."""
        manifest, _ = load(self._manifest_dir)
        shard_of: dict[str, str] = {}
        for path, kind in self._kinds.items():
            with Shard(Path(path), kind=kind) as shard:
                shard_of.update(dict.fromkeys(shard.ids, path))
        samples = tuple(manifest.split("train"))
        missing = [sample.id for sample in samples if sample.id not in shard_of]
        if missing or not samples:
            raise ArtifactError(
                f"{len(missing)} of {len(samples)} training images have no mask"
                + (f", e.g. {missing[0]!r}" if missing else "")
                + f" in {', '.join(self._kinds)}; pass all mask shards of the train split"
            )
        return [
            {
                "id": sample.id,
                "img_path": str(sample.path),
                "digest": sample.digest,
                "seg_map_path": shard_of[sample.id],
                "size": (sample.height, sample.width),
            }
            for sample in samples
        ]

    def full_init(self) -> None:
        """Load the records and, if the set is small, all pixels."""
        if self._fully_initialized:
            return
        with without_requested_collection(base_dataset):
            super().full_init()
        records = [self.get_data_info(index) for index in range(len(self))]
        if (
            _BYTES_PER_PIXEL * sum(h * w for h, w in (r["size"] for r in records))
            <= self._cache_bytes
        ):
            self._cache = [self._read(record) for record in records]
            self._close()

    def index(self, position: int) -> int:
        """The image at a position of the stream."""
        if self._order is None:  # the length is known once the records are loaded
            self._order = seeding.EpochOrder(self._seed, len(self))
        return self._order[position]

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The augmented sample at a position of the stream, packed for mmsegmentation."""
        with one_sentence(), seeding.numpy_seeded(self._seed, seeding.AUGMENTATION, position):
            return self.prepare_data(self.index(position))

    def prepare_data(self, idx: int) -> dict[str, Any]:
        """Decode one image and its mask and send them through the pipeline."""
        record = self.get_data_info(idx)
        photo, mask = self._cache[idx] if self._cache else self._read(record)
        record.update(img=photo.copy(), gt_seg_map=mask.copy(), seg_fields=["gt_seg_map"])
        record.update(img_shape=mask.shape, ori_shape=mask.shape)
        return self.pipeline(record)

    def _read(
        self, record: dict[str, Any]
    ) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"]]:
        """The photo (BGR, as mmsegmentation's transforms expect it) and its target."""
        path, digest = Path(record["img_path"]), record["digest"]
        photo = read_image(path, digest=digest, max_pixels=self._max_pixels)
        mask = self._shard(record["seg_map_path"]).read(record["id"]).arrays["train"]
        mask_of = f"{record['seg_map_path']}: the mask of {record['id']!r}"
        if mask.shape != photo.shape[:2]:
            raise ArtifactError(
                f"{mask_of} is {mask.shape}, its image {record['img_path']} is {photo.shape[:2]} "
                "(height, width); rerun the masks stage"
            )
        labels = len(self._metainfo["classes"])
        if (highest := int(mask[mask != IGNORED].max(initial=0))) >= labels:
            raise ArtifactError(
                f"{mask_of} has label {highest}, but the class list ends at {labels - 1}; "
                "rerun the masks stage"
            )
        return np.ascontiguousarray(photo[:, :, ::-1]), mask

    def _shard(self, path: str) -> Shard:
        """An open shard; HDF5 files are opened anew in every worker process."""
        process, shards = self._open
        if process != os.getpid():
            shards = {}
            self._open = (os.getpid(), shards)
        if path not in shards:
            shards[path] = Shard(Path(path), kind=self._kinds[path])
        return shards[path]

    def _close(self) -> None:
        for shard in self._open[1].values():
            shard.close()
        self._open = (-1, {})


@DATA_SAMPLERS.register_module()
class StreamSampler(Sampler[int]):
    """Endless positions 0, 1, 2 …, split among the devices so that the global batch is the same.

    Args:
        dataset: the data set; its length is reported as the sampler's, as mmengine expects.
        seed: not read; the data set decides the order.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        self._dataset = dataset
        self._rank, self._devices = get_dist_info()
        self._start = 0

    def __iter__(self) -> Iterator[int]:
        position = self._start * self._devices + self._rank
        while True:
            yield position
            position += self._devices

    def __len__(self) -> int:
        return len(self._dataset)

    def skip(self, num_samples: int) -> None:
        """Start after this many samples per device; mmengine calls it on resume."""
        self._start = num_samples
