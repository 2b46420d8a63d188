"""A trained segmenter on new photos: masks, overlays and gallery, from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from wsss.api.inputs import section
from wsss.api.models import Predictor, load_segmenter
from wsss.artifacts.checkpoint_header import checkpoint_facts, tensors_digest
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.exclusive_lock import exclusive_lock
from wsss.artifacts.progress import track
from wsss.artifacts.stage import STAGES
from wsss.compute.device import pick_device
from wsss.compute.precision import computing
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.compute import ComputeConfig
from wsss.config.labels import crf_backend
from wsss.data.errors import DataError, ImageError
from wsss.data.images.read import read_image
from wsss.data.manifest import Sample
from wsss.photos.classes import read_class_table
from wsss.photos.drawing import draw
from wsss.photos.files import left_out_photo, photos_below
from wsss.photos.record import Entry, Record, Tag, read_record
from wsss.photos.review import is_narrow
from wsss.photos.tree import ResultTree
from wsss.retrain.attention import refuse_too_large

RECORD = Path("results", "prediction", "gallery.json")
_SURE = 0.95
"""Probability below which a pixel counts as unsure, as `masks.min_confidence`."""
_Loaded = tuple[Sample, np.ndarray | ImageError]
_Labelled = tuple[Sample, tuple[np.ndarray, np.ndarray, np.ndarray] | ImageError]
"""With the photo, its labels, and the network's confidence."""
_WEIGHTS = ("weights.safetensors", "segmenter/weights.safetensors")


def predict_photos(
    photos: Path,
    weights: Path,
    out: Path,
    *,
    crf: bool = False,
    long_side: int = 1024,
    scales: Sequence[float] | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Record:
    """Label photos, and write them as a folder of results; photos that did not change are kept.

    The same call continues an interrupted one.

    Args:
        photos: a folder, or one photo.
        weights: checkpoint of a segmenter, or the folder of the segmenter or of its run.
        crf: refine the probabilities with a dense CRF.
        long_side: larger photos are scaled to this side for the network; masks have the size of
            the photo.
        scales: of that, above 0 and up to 16, over which probabilities are averaged; None: those
            of the checkpoint.
        device: ``auto`` takes a GPU if there is one.
        precision: as ``compute.precision``. Photos that were labelled in another one are labelled
            again.

    Returns:
        What the folder shows.

    Raises:
        ArtifactError: there is no such checkpoint, it is damaged, or holds no segmenter; or another
            process writes to ``out``.
        DataError: there is no photo that can be read.
        ValueError: a photo is too large for the network's attention, or a scale is out of range.
        WriteError: there is no space or no right to write.
    """
    section(ComputeConfig, {"device": device, "precision": precision})
    checkpoint = _checkpoint(weights)
    with computing(device, precision):  # provenance and keys hold it
        return _predict(photos, checkpoint, out, crf, long_side, scales, device, precision)


def _predict(
    photos: Path,
    checkpoint: Path,
    out: Path,
    crf: bool,
    long_side: int,
    scales: Sequence[float] | None,
    device: str,
    precision: str,
) -> Record:
    """See `predict_photos`."""
    samples, left_out = photos_below(photos)
    predictor = load_segmenter(checkpoint, scales=scales, device=device, precision=precision)
    facts = checkpoint_facts(checkpoint)  # scales and windows are no part of the weights
    facts |= {} if scales is None else {"scales": list(map(float, scales))}
    names = predictor.names[1:]
    classes = read_class_table(out).with_classes(names)
    lookup = np.zeros(256, np.uint8)
    lookup[1 : len(names) + 1] = classes.labels(names)
    provenance = STAGES["photo_predict"].provenance(
        {}, weights={"segmenter": tensors_digest(checkpoint)}
    )
    colours = [classes.colours[label] for label in lookup[1 : len(names) + 1]]
    backend = crf_backend() if crf else None
    key = digest_json([provenance.key(), lookup.tolist(), colours, backend, long_side, facts])
    keys = {sample.id: digest_json([key, sample.digest]) for sample in samples}
    tree = ResultTree(out, out / RECORD)
    unchanged = tree.unchanged(keys, {s.id: str(s.path.absolute()) for s in samples})
    todo = [sample for sample in samples if sample.id not in unchanged]
    palette = classes.palette()
    refuse_too_large(
        todo,
        lambda height, width: predictor.attention_bytes(*_input_size(height, width, long_side)),
        "lower --long-side, e.g. to 1024",
    )

    def load(sample: Sample) -> _Loaded:
        try:
            return sample, read_image(sample.path, digest=sample.digest)
        except ImageError as error:
            return sample, error

    def label(loaded: _Loaded) -> _Labelled:
        sample, photo = loaded
        if isinstance(photo, ImageError):
            return sample, photo
        return sample, (photo, *_labels(predictor, photo, long_side, crf=crf))

    def write(labelled: _Labelled) -> Entry | ImageError:
        sample, arrays = labelled
        if isinstance(arrays, ImageError):
            return arrays
        photo, labels, confidence = arrays
        drawn = draw(sample.id, photo, lookup[labels], out, palette)
        entry = Entry(
            id=sample.id,
            photo=str(sample.path.absolute()),
            size=(sample.width, sample.height),
            key=keys[sample.id],
            tags=tuple(Tag(label, None) for label in sorted(drawn.shares) if label),
            shares=drawn.shares,
            unsure=float(np.mean(confidence < _SURE)),
            grid=drawn.grid,
            runs=drawn.runs,
            files=drawn.files,
            narrow=is_narrow(
                sample.width, sample.height, min(long_side, max(sample.width, sample.height))
            ),
        )
        tree.add(entry)  # in this thread: an interruption waits for it
        return entry

    def entries() -> Iterator[Entry | ImageError]:
        if pick_device(device).type == "cpu":
            with one_thread_each() as threads:
                yield from ordered_map(lambda s: write(label(load(s))), todo, threads=threads)
        else:  # the next photos are decoded, and the last ones written, while the GPU works
            labelled = map(label, ordered_map(load, todo, threads=2))
            yield from ordered_map(write, labelled, threads=2)

    by_id = dict(unchanged)
    with exclusive_lock((out / RECORD).parent, label=f"--out {out}"):
        tree.begin()
        tracked = track(entries(), total=len(todo), description="Segmenting photos")
        for sample, result in zip(todo, tracked, strict=True):
            if isinstance(result, ImageError):
                left_out.append(left_out_photo(sample.path, result.reason))
            else:
                by_id[sample.id] = result
        if not by_id:
            raise DataError(f"{photos}: no photo that can be read")
        ordered = [by_id[sample.id] for sample in samples if sample.id in by_id]
        tree.finish(photos.resolve().name, ordered, classes, provenance, left_out)
    return read_record(out / RECORD)


def _labels(
    predictor: Predictor, photo: np.ndarray, long_side: int, *, crf: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Labels at the size of the photo, and the confidence at that of the network's input."""
    height, width = photo.shape[:2]
    size = _input_size(height, width, long_side)
    if size == (height, width):
        return tuple(predictor.predict(photo, crf=crf))  # type: ignore[return-value]
    small = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA)
    labels, confidence = predictor.predict(small, crf=crf)
    return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST), confidence


def _input_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Height and width at which a photo enters the network."""
    share = min(1.0, long_side / max(height, width))
    return max(1, round(share * height)), max(1, round(share * width))


def _checkpoint(weights: Path) -> Path:
    for path in (weights, *(weights / name for name in _WEIGHTS)):
        if path.is_file():
            return path
    raise ArtifactError(
        f"--weights {weights}: no checkpoint of a segmenter; name segmenter/weights.safetensors of "
        "a run with retrain.enabled, or that run's folder"
    )
