"""Pseudo labels of whole training images, made once before a training and cut for its crops.

They hang on nothing that is trained. Made in chunks, so that an interruption loses at most one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import provenance
from wsss.artifacts.shard import Item, Shard, ShardWriter
from wsss.clip.images import resize_image
from wsss.clip.input import EncoderInput
from wsss.compute import distributed
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.labels.ignore import IGNORED
from wsss.labels.online import IgnoreBand, online_labels
from wsss.refine.inputs import CamSet

_CHUNK = 256  # images
_LONGEST = 640  # pixels: larger images are labelled at this size, which bounds the memory of PAR


class ImageLabels:
    """Labels of the training images of a `CamSet`, from their CAMs after the affinity.

    Args:
        cams: the images.
        inputs: reads photos.
        unsure: the ignore band; None for none.
        cache: folder in which they are found again, also by runs of other seeds and settings.
    """

    def __init__(
        self, cams: CamSet, inputs: EncoderInput, unsure: IgnoreBand | None, cache: Path
    ) -> None:
        self._cams, self._inputs = cams, inputs
        self._unsure = unsure
        self._band = None if unsure is None else [unsure.low, unsure.high]
        self._made = provenance(
            "image_labels",
            entry=("wsss.refine.training.image_labels",),
            sections={},
            seed=0,  # nothing is random here
            weights=cams.weights,
        )
        self._made_key = self._made.key()
        ids = cams.ids
        folder = cache / "image_labels" / digest_json([self._key(image) for image in ids])[:16]
        chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
        self._where: dict[str, Shard] = {}
        ahead = track(self._make(chunks, folder), total=len(ids), description="Labels")
        with distributed.first_alone():
            for _ in ahead:
                pass

    def read(self, image: str) -> UInt8[np.ndarray, "h w"]:
        """The label of an image: 0 background, class + 1, 255 unsure; perhaps reduced in size."""
        label: UInt8[np.ndarray, "h w"] = self._where[image].read(image).arrays["label"]
        return label

    def _make(self, chunks: list[list[str]], folder: Path) -> Iterator[str]:
        """Make the chunks that are not there yet; gives each image's id when it is done."""
        for number, ids in enumerate(chunks):
            path = folder / f"{number:05d}.h5"
            if (shard := _finished(path)) is None:
                with (
                    ShardWriter(path, kind="labels", ids=ids, provenance=self._made) as writer,
                    one_thread_each() as threads,
                ):
                    for image, label in ordered_map(self._label, ids, threads=threads):
                        writer.add(Item(image, {"label": label}, {}, self._key(image)))
                        yield image
                shard = Shard(path, kind="labels")
            else:
                yield from ids
            self._where.update(dict.fromkeys(ids, shard))

    def _key(self, image: str) -> str:
        sample = self._cams.sample(image)
        return digest_json([self._made_key, sample.digest, self._cams.key(image), self._band])

    @torch.inference_mode()
    def _label(self, image: str) -> tuple[str, UInt8[np.ndarray, "h w"]]:
        cams = self._cams.read(image)
        size = _reduced(cams.sample.height, cams.sample.width)
        if not cams.classes:  # nobody says what is on it, so nothing is learned from it
            return image, np.full(size, IGNORED, np.uint8)
        photo = self._inputs.normalize(resize_image(self._inputs.photo(cams.sample), size))
        label = online_labels(
            photo[None],
            torch.from_numpy(cams.maps.astype(np.float32)),
            torch.zeros(len(cams.classes), dtype=torch.long),
            torch.tensor(cams.classes),
            size,
            ignore_band=self._unsure,
        )
        return image, label[0].numpy()


def _finished(path: Path) -> Shard | None:
    """A chunk of an earlier run; its folder's name says that it was made from the same things."""
    try:
        return Shard(path, kind="labels") if path.exists() else None
    except ArtifactError:
        return None


def _reduced(height: int, width: int) -> tuple[int, int]:
    factor = min(1.0, _LONGEST / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))
