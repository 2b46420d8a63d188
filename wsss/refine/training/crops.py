"""Training crops as an endless, seekable stream.

Position p of the stream is a function of (seed, p) alone: every epoch is a new order of the images,
and the crop is drawn anew. So a resumed training, or one with another number of threads, sees the
same crops as an uninterrupted one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor

from wsss.clip.input import EncoderInput
from wsss.compute import distributed, seeding
from wsss.compute.packed_rows import to_device
from wsss.compute.threads import ordered_map
from wsss.config.refine import TrainingConfig
from wsss.data.images.crop import Crop, draw_crop
from wsss.data.images.photometric import distort
from wsss.data.manifest import Sample
from wsss.labels.ignore import IGNORED
from wsss.refine.inputs import CamSet, ImageCams, TruthSet

_CACHE_BYTES = 512 << 20

ReadLabels = Callable[[str], UInt8[np.ndarray, "h w"]]


@dataclass(frozen=True)
class CropBatch:
    """Some crops; the maps of all of them are packed, rows of the first, then of the second …"""

    images: Float[Tensor, "batch 3 height width"]
    """Normalised."""
    valid: Bool[Tensor, "batch height width"]
    """False in padding."""
    labels: UInt8[Tensor, "batch height width"] | None
    """The image's pseudo label (its truth with full supervision), cut; None without."""
    image_index: Int[Tensor, " rows"]
    """The crop of each row; on the CPU, so that counts and places cost no wait for a GPU."""
    classes: Int[Tensor, " rows"]
    """The class of each row, 0-based: the tags of the whole image; on the CPU."""
    probabilities: Float[Tensor, " rows"]
    """Of the class on the whole image; NaN where it is not known."""
    initial: Float[Tensor, "rows grid grid"]
    """The image's CAM before the affinity, cut; in 0 … 1."""
    maps: Float[Tensor, "rows grid grid"]
    """The image's CAM after the affinity, cut; in 0 … 1."""
    cuts: tuple[tuple[str, Crop], ...] = ()
    """Of each crop the image, and where it was cut."""

    @property
    def tags(self) -> list[list[int]]:
        """The classes of each crop."""
        counts = torch.bincount(self.image_index, minlength=len(self.images)).tolist()
        return [part.tolist() for part in self.classes.split(counts)]

    def to(self, device: torch.device) -> CropBatch:
        """A copy on a device, but for `image_index` and `classes`."""
        moved: dict[str, Any] = {n: to_device(v, device) for n, v in self._large().items()}
        return replace(self, **moved)

    def pinned(self) -> CropBatch:
        """A copy in memory from which a GPU fetches while the host goes on."""
        pinned: dict[str, Any] = {n: tensor.pin_memory() for n, tensor in self._large().items()}
        return replace(self, **pinned)

    def _large(self) -> dict[str, Tensor]:
        on_host = ("image_index", "classes")
        tensors = {n: value for n, value in vars(self).items() if isinstance(value, Tensor)}
        return {name: value for name, value in tensors.items() if name not in on_host}


@dataclass(frozen=True)
class _Cut:
    """What `CropBatch` holds of one crop."""

    crop: Crop
    image: Float[Tensor, "3 side side"]
    valid: Bool[np.ndarray, "side side"]
    labels: UInt8[np.ndarray, "side side"] | None
    cams: ImageCams
    initial: Float32[np.ndarray, "classes grid grid"]
    maps: Float32[np.ndarray, "classes grid grid"]


class CropStream:
    """Draws batches of crops.

    Args:
        cams: the training images and their CAMs, of which a `TruthSet` has none.
        inputs: reads and normalises photos.
        workers: threads that decode and cut ahead.
        labels: reads an image's label map, of any size; None for none.
        padding: label of what lies outside the image.
        fill: what lies outside the image: black, or 0 after the normalisation.
        smooth: whether images are smoothed where they shrink.
        corner: see `draw_crop`.
        repeated: images that come twice per epoch.
        images: draw crops of these alone; None draws from all.

    Raises:
        ValueError: the crop is no multiple of the patch, there is no image, or the batch cannot be
            shared by the processes that were launched.
    """

    def __init__(
        self,
        cams: CamSet | TruthSet,
        inputs: EncoderInput,
        settings: TrainingConfig,
        *,
        seed: int,
        workers: int,
        labels: ReadLabels | None = None,
        padding: int = IGNORED,
        fill: Literal["black", "zero"] = "black",
        smooth: bool = True,
        corner: bool = False,
        repeated: Collection[str] = (),
        images: Collection[str] | None = None,
    ) -> None:
        patch = inputs.encoder.patch
        if problem := settings.crop_problem(patch):
            raise ValueError(problem)
        if not len(cams):
            raise ValueError("there is no training image; check data.train_list")
        self._cams, self._inputs, self._settings = cams, inputs, settings
        self._seed, self._workers, self._labels = seed, workers, labels
        self._padding, self._fill = padding, fill
        self._smooth, self._corner = smooth, corner
        self._batch_size = distributed.local_batch(settings.batch, "refine.train.batch")
        ids = [image for image in cams.ids if images is None or image in images]
        self._entries = [*ids, *(image for image in ids if image in repeated)]
        self._grid = settings.crop // patch[0]
        self._order = seeding.EpochOrder(seed, len(self._entries))
        self._cache: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
        samples = (cams.sample(image) for image in cams.ids)
        self._fits_cache = sum(4 * s.height * s.width for s in samples) <= _CACHE_BYTES

    def batches(self, start: int) -> Iterator[CropBatch]:
        """The batches from step ``start`` on, up to the last, cut ahead by threads.

        Of several processes each gets its part of them.
        """
        steps = range(start, self._settings.iterations)
        # Positions are looked up here, in order: the permutation of an epoch is cached.
        tasks = ([self._entry(p) for p in self._positions(step)] for step in steps)
        return ordered_map(self._batch, tasks, threads=self._workers)

    def _positions(self, step: int) -> range:
        """This process's part of the step's batch; all of it in a single process."""
        start = step * self._settings.batch + distributed.rank() * self._batch_size
        return range(start, start + self._batch_size)

    def _entry(self, position: int) -> tuple[str, int]:
        return self._entries[self._order[position]], position

    def _batch(self, entries: list[tuple[str, int]]) -> CropBatch:
        cuts = [self._cut(*entry) for entry in entries]
        counts = [len(cut.cams.classes) for cut in cuts]
        probs = [cut.cams.probabilities or (float("nan"),) * len(cut.cams.classes) for cut in cuts]
        labels = [cut.labels for cut in cuts if cut.labels is not None]
        batch = CropBatch(
            images=torch.stack([cut.image for cut in cuts]),
            valid=torch.from_numpy(np.stack([cut.valid for cut in cuts])),
            labels=torch.from_numpy(np.stack(labels)) if labels else None,
            image_index=torch.repeat_interleave(torch.arange(len(cuts)), torch.tensor(counts)),
            classes=torch.tensor([k for cut in cuts for k in cut.cams.classes], dtype=torch.long),
            probabilities=torch.tensor(
                [p for of_cut in probs for p in of_cut], dtype=torch.float32
            ),
            initial=torch.from_numpy(np.concatenate([cut.initial for cut in cuts])),
            maps=torch.from_numpy(np.concatenate([cut.maps for cut in cuts])),
            cuts=tuple((cut.cams.sample.id, cut.crop) for cut in cuts),
        )
        return batch.pinned() if self._inputs.encoder.device.type == "cuda" else batch

    def _cut(self, image: str, position: int) -> _Cut:
        cams = self._cams.read(image)
        photo, labels = self._read(cams.sample)
        generator = np.random.default_rng(
            seeding.seed_words(self._seed, seeding.AUGMENTATION, position)
        )
        size = (cams.sample.height, cams.sample.width)
        settings, accept = self._settings, None
        base = 1.0 if settings.short_side is None else settings.short_side / min(size)
        low, high = settings.scale_range
        if labels is not None and settings.cat_max_ratio < 1:
            accept = functools.partial(_is_mixed, labels, settings.cat_max_ratio)
        scales = (base * low, base * high)
        crop = draw_crop(size, settings.crop, scales, generator, corner=self._corner, accept=accept)
        cut, valid = crop.photo(photo, smooth=self._smooth), crop.valid()
        if settings.photometric:
            cut = np.where(valid[..., None], distort(cut, generator), cut)
        pixels = self._inputs.normalize(cut)
        if self._fill == "zero":
            pixels *= torch.from_numpy(valid)
        return _Cut(
            crop,
            pixels,
            valid,
            None if labels is None else crop.labels(labels, outside=self._padding),
            cams,
            crop.maps(cams.initial.astype(np.float32), self._grid),
            crop.maps(cams.maps.astype(np.float32), self._grid),
        )

    def _read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        """Photo and label; a small set stays in memory."""
        if (cached := self._cache.get(sample.id)) is not None:
            return cached
        content = (self._inputs.photo(sample), self._labels(sample.id) if self._labels else None)
        if self._fits_cache:
            self._cache[sample.id] = content
        return content


def _is_mixed(labels: UInt8[np.ndarray, "h w"], max_ratio: float, crop: Crop) -> bool:
    """Whether no label covers more than ``max_ratio`` of the labelled pixels of a crop."""
    cut = crop.labels(labels, outside=IGNORED)
    counts = np.bincount(cut[cut != IGNORED])
    return bool(np.count_nonzero(counts) > 1 and counts.max() < max_ratio * counts.sum())
