"""Pseudo labels of whole training images, computed once before a training and cut for its crops.

They depend on nothing that is trained. Computed in chunks, so that an interruption loses at most
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.exclusive_lock import exclusive_lock
from wsss.artifacts.progress import track
from wsss.artifacts.shard import Item, Shard, ShardWriter
from wsss.artifacts.stage import STAGES
from wsss.clip.images import resize_image
from wsss.clip.input import EncoderInput
from wsss.compute import distributed
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.compute.workers import cores
from wsss.labels.ignore import IGNORED
from wsss.labels.online import IgnoreBand, online_labels
from wsss.refine.inputs import CamSet

_CHUNK = 256  # images
_LONGEST = 640  # pixels: larger images are labelled at this size, which bounds the memory of PAR


class ImageLabels:
    """Labels of the training images of a `CamSet`, from their CAMs after the affinity.

    Args:
        ignore_band: the ignore band; None for none.
        cache: folder in which they are stored, also for runs with other seeds and settings.
    """

    def __init__(
        self, cams: CamSet, inputs: EncoderInput, ignore_band: IgnoreBand | None, cache: Path
    ) -> None:
        self._cams, self._inputs = cams, inputs
        self._ignore_band = ignore_band
        self._band = None if ignore_band is None else [ignore_band.low, ignore_band.high]
        self._provenance = STAGES["image_labels"].provenance({}, weights=cams.weights)
        self._key_of_all = [self._provenance.key(), self._band, *inputs.normalization]
        ids = cams.ids
        folder = cache / "image_labels" / digest_json([self._key(image) for image in ids])[:16]
        chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
        self._shard_of: dict[str, Shard] = {}
        # Trainings that start together share the folder: the first one computes.
        with distributed.rank_zero_first(), exclusive_lock(folder, wait=True):
            for _ in track(self._compute(chunks, folder), total=len(ids), description="Labels"):
                pass

    def read(self, image: str) -> UInt8[np.ndarray, "h w"]:
        """The label of an image: 0 background, class + 1, 255 ignored; perhaps reduced in size."""
        return self._shard_of[image].read(image).arrays["label"]

    def _compute(self, chunks: list[list[str]], folder: Path) -> Iterator[str]:
        """Compute missing chunks; gives each image's id when it is done."""
        for index, ids in enumerate(chunks):
            path = folder / f"{index:05d}.h5"
            if (shard := _finished(path)) is None:
                with (
                    ShardWriter(
                        path, kind="labels", ids=ids, provenance=self._provenance
                    ) as writer,
                    one_thread_each() as threads,
                ):
                    # The other processes of this machine wait.
                    threads = min(cores(), threads * distributed.local_world_size())
                    for image, label in ordered_map(self._label, ids, threads=threads):
                        writer.add(Item(image, {"label": label}, {}, self._key(image)))
                        yield image
                shard = Shard(path, kind="labels")
            else:
                yield from ids
            self._shard_of.update(dict.fromkeys(ids, shard))

    def _key(self, image: str) -> str:
        sample = self._cams.sample(image)
        return digest_json([*self._key_of_all, image, sample.digest, self._cams.digest(image)])

    @torch.inference_mode()
    def _label(self, image: str) -> tuple[str, UInt8[np.ndarray, "h w"]]:
        cams = self._cams.read(image)
        size = _reduced(cams.sample.height, cams.sample.width)
        if not cams.classes:  # what it shows is not known
            return image, np.full(size, IGNORED, np.uint8)
        photo = self._inputs.normalize(resize_image(self._inputs.photo(cams.sample), size))
        label = online_labels(
            photo[None],
            torch.from_numpy(cams.maps.astype(np.float32)),
            torch.zeros(len(cams.classes), dtype=torch.long),
            torch.tensor(cams.classes),
            size,
            ignore_band=self._ignore_band,
        )
        return image, label[0].numpy()


def _finished(path: Path) -> Shard | None:
    """A chunk of an earlier run; its folder's name covers everything that it depends on."""
    try:
        return Shard(path, kind="labels") if path.exists() else None
    except ArtifactError:
        return None


def _reduced(height: int, width: int) -> tuple[int, int]:
    factor = min(1.0, _LONGEST / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))
