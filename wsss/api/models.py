"""Trained refiners and segmenters from their checkpoints alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from wsss.api.clip import Clip, check_clip, device_name
from wsss.api.inputs import (
    Photo,
    argument_names,
    options_of,
    read_image,
    section,
    texts_of,
)
from wsss.api.results import PALETTE, ClassMaps, Segmentation
from wsss.artifacts.errors import ArtifactError
from wsss.compute.precision import computing
from wsss.config.compute import ComputeConfig
from wsss.config.labels import CrfConfig
from wsss.config.retrain import PredictConfig
from wsss.data.counted import first_names
from wsss.data.datasets.classes import nearest, spelling
from wsss.labels.prediction import Prediction, candidates, label_maps
from wsss.labels.striped import striped_labels
from wsss.refine.base import Refiner
from wsss.refine.load import from_checkpoint

_LARGEST_BYTES = 64 << 20
"""Of the probabilities of all labels. A segmenter computes those of larger photos in stripes."""
_SHOWN = 5
_drawing = threading.Lock()
"""Torch's random numbers are those of the process."""

Stripes = Iterator[tuple[slice, Float[torch.Tensor, "labels rows width"]]]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network that labels photos without tags."""

    names: tuple[str, ...]
    """Of the labels, background first."""
    palette: UInt8[np.ndarray, "256 3"]
    """RGB colour of each label."""
    _run: Callable[[np.ndarray], Mapping[str, torch.Tensor]]
    _stripes: Callable[[np.ndarray, bool], Stripes] | None = field(default=None, kw_only=True)
    """The probabilities of a large photo in stripes; None: they are computed as a whole."""
    attention_bytes: Callable[[int, int], int] = field(default=lambda *_: 0, kw_only=True)
    """Memory for a segmenter's attention at a photo's height and width."""

    def __repr__(self) -> str:
        more = ", …" if len(self.names) > _SHOWN else ""
        shown = ", ".join(self.names[:_SHOWN])
        return f"<{type(self).__name__} of {len(self.names)} labels: {shown}{more}>"

    def probabilities(
        self, photo: Photo, *, multi_scale: bool = True
    ) -> Float32[np.ndarray, "labels height width"]:
        """Of every label at every pixel.

        Args:
            photo: see `wsss.read_image`.
            multi_scale: the mean over several scales and mirroring; otherwise one pass.
        """
        image = read_image(photo)
        if stripes := self._in_stripes(image, multi_scale):
            whole = np.empty((len(self.names), *image.shape[:2]), np.float32)
            for rows, part in stripes:
                whole[:, rows] = part.cpu().numpy()
            return whole
        probs = self._run(image)["multi" if multi_scale else "single"]
        return probs.float().cpu().numpy()

    def predict(
        self,
        photo: Photo,
        *,
        multi_scale: bool = True,
        crf: bool | Mapping[str, float | str] = False,
    ) -> Segmentation:
        """The most likely label of every pixel.

        Args:
            photo: see `wsss.read_image`.
            multi_scale: see `probabilities`.
            crf: refine the probabilities with `wsss.dense_crf`; a mapping holds arguments of it.
                It runs at a ``long_side`` of 1024, unless the mapping says otherwise. The
                confidence stays that of the network; above 64 MiB of probabilities a segmenter
                gives it at that ``long_side``.
        """
        image = read_image(photo)
        refined = section(CrfConfig, options_of("crf", crf))
        settings = refined if refined.enabled else None
        if stripes := self._in_stripes(image, multi_scale):
            labels, confidence = striped_labels(stripes, image, len(self.names), settings)
            return Segmentation(image, labels, confidence, self.names, self.palette)
        probs = self.probabilities(image, multi_scale=multi_scale)
        labels = probs.argmax(axis=0).astype(np.uint8)
        if settings is not None:
            prediction = Prediction(image, {"label": candidates(probs, "candidates")})
            labels = label_maps(prediction, settings)["label_crf"]
        confidence = np.take_along_axis(probs, labels[None].astype(np.intp), axis=0)[0]
        return Segmentation(image, labels, confidence, self.names, self.palette)

    def _in_stripes(
        self, image: UInt8[np.ndarray, "height width 3"], multi_scale: bool
    ) -> Stripes | None:
        """Stripes where the photo is large; below that size predictions stay as published."""
        size = 4 * len(self.names) * image.shape[0] * image.shape[1]
        if self._stripes is None or size <= _LARGEST_BYTES:
            return None
        return self._stripes(image, multi_scale)


@dataclass(frozen=True, eq=False, repr=False)
class RefinerPredictor(Predictor):
    """A trained refiner, which also scores the tags of a photo."""

    refiner: Refiner[Any]
    _numerics: tuple[str, str] = ("auto", "auto")
    """Its device and its precision."""

    def scores(self, photo: Photo, tags: Iterable[str]) -> ClassMaps:
        """Probabilities among the background and a photo's tags, for `wsss.pseudo_mask`.

        Args:
            photo: see `wsss.read_image`.
            tags: names of classes that the refiner was trained for.

        Raises:
            TypeError: the tags are no list of names.
            ValueError: there is no tag, or one is none of those classes or named twice.
        """
        tags = texts_of("tags", tags)
        classes = self.names[1:]
        indices = {spelling(name): index for index, name in enumerate(classes)}
        if unknown := [tag for tag in tags if spelling(tag) not in indices]:
            near = nearest(unknown[0], classes)
            listed = f"; the classes are {first_names(classes)}"
            raise ValueError(f"{unknown[0]!r} is no class of this refiner{near or listed}")
        rows = [indices[spelling(tag)] for tag in tags]
        if not tags or len(set(rows)) < len(rows):
            problem = "a tag is named twice" if tags else "there is no tag to score"
            raise ValueError(f"{problem}; name what is on the photo")
        image = read_image(photo)
        with computing(*self._numerics):
            scores = self.refiner.tag_scores(image, rows)
        return ClassMaps(image, tags, scores.classes, background=scores.background)


@argument_names()
def load_refiner(
    checkpoint: str | os.PathLike[str],
    *,
    clip: Clip | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> RefinerPredictor:
    """A refiner with the class names, options and CLIP that its checkpoint names.

    Args:
        checkpoint: ``refine/checkpoint.safetensors`` of a run, or the folder of that run.
        clip: of `wsss.load_clip`, if it is loaded already; None loads the one that it was trained
            with.
        device: see `wsss.load_clip`.
        precision: see `wsss.load_clip`; with ``bf16`` its own part computes in bfloat16.

    Raises:
        ArtifactError: the file is missing or damaged, holds no refiner, or was trained with other
            CLIP weights.
        ClipLoadError: its CLIP cannot be loaded.
        DinoLoadError: its DINOv2 cannot be loaded, where it has one.
    """
    if clip is not None:
        check_clip(clip)
    device = device_name(device)
    section(ComputeConfig, {"device": device, "precision": precision})
    file = _checkpoint_file(checkpoint, "refine/checkpoint.safetensors")
    loaded = None if clip is None else clip.inputs.clip
    with computing(device, precision):
        refiner = from_checkpoint(file, clip=loaded, device=device)

    def run(image: UInt8[np.ndarray, "height width 3"]) -> Mapping[str, torch.Tensor]:
        with computing(device, precision):
            if not refiner.draws_at_inference:
                return refiner.probabilities(image)
            with _drawing, torch.random.fork_rng():
                torch.manual_seed(0)
                return refiner.probabilities(image)

    names = ("background", *refiner.setup.classes.names)
    return RefinerPredictor(names, PALETTE, run, refiner, (device, precision))


@argument_names()
def load_segmenter(
    checkpoint: str | os.PathLike[str],
    *,
    scales: Sequence[float] | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Predictor:
    """A segmenter with the names, colours, scales and windows that its checkpoint holds.

    Args:
        checkpoint: ``segmenter/weights.safetensors`` of a run, the folder of that run, or what
            `wsss photos` wrote.
        scales: of the photo, above 0 and up to 16, over which probabilities are averaged; None:
            those of the checkpoint.
        device: see `wsss.load_clip`.
        precision: see `wsss.load_clip`; with ``bf16`` the network computes in bfloat16.

    Raises:
        ArtifactError: the file is missing or damaged, or holds no segmenter.
        ValueError: there is no such device or precision, or a scale is out of range.
    """
    chosen = {} if scales is None else {"scales": section(PredictConfig, {"scales": scales}).scales}
    device = device_name(device)
    section(ComputeConfig, {"device": device, "precision": precision})
    file = _checkpoint_file(checkpoint, "segmenter/weights.safetensors")
    from wsss.retrain.segmenter import load_segmenter as load  # mmsegmentation takes seconds

    segmenter = load(file, device, **chosen)

    def run(image: UInt8[np.ndarray, "height width 3"]) -> Mapping[str, torch.Tensor]:
        with computing(device, precision):
            return {name: probs[0] for name, probs in segmenter.probabilities(image[None]).items()}

    palette = PALETTE.copy()
    palette[: len(segmenter.facts.palette)] = segmenter.facts.palette

    def stripes(image: UInt8[np.ndarray, "height width 3"], multi_scale: bool) -> Stripes:
        parts = segmenter.stripes(image, multi=multi_scale)

        def step() -> tuple[slice, torch.Tensor] | None:
            with computing(device, precision):  # between two parts the caller computes as before
                return next(parts, None)

        return iter(step, None)

    return Predictor(
        segmenter.facts.labels,
        palette,
        run,
        _stripes=stripes,
        attention_bytes=segmenter.attention_bytes,
    )


def _checkpoint_file(checkpoint: str | os.PathLike[str], inside: str) -> Path:
    """The file of a checkpoint; in a folder, that of the run that the folder is or holds.

    Args:
        checkpoint: file or folder.
        inside: its path in the folder of a run.

    Raises:
        ArtifactError: the folder holds none, or those of several runs.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        return folder
    name = inside.rpartition("/")[2]
    patterns = (name, inside, f"results/*/{inside}")
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not files:
        raise ArtifactError(f"{folder}: holds no {inside}; name that file of a run, or the run")
    if len(files) > 1:
        shown = ", ".join(map(str, files))
        raise ArtifactError(f"{folder}: holds {len(files)} checkpoints; name one of them: {shown}")
    return files[0]
