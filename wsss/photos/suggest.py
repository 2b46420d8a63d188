"""Tags that CLIP proposes for a folder of photos, as a table to review."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from wsss.api.inputs import section
from wsss.artifacts.atomic import write_text
from wsss.artifacts.progress import track
from wsss.clip.input import EncoderInput
from wsss.clip.tags.predicted import class_probabilities
from wsss.clip.text.embeddings import TextBank, text_bank
from wsss.compute.precision import computing
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.clip import ClipConfig
from wsss.config.compute import ComputeConfig
from wsss.data.datasets.classes import customise, folder_classes
from wsss.data.errors import ImageError
from wsss.data.manifest import TAG_SEPARATOR, Sample
from wsss.photos.files import left_out_photo, photos_below


def suggest_tags(
    folder: Path,
    words: Sequence[str],
    out: Path,
    cache: Path,
    *,
    clip: ClipConfig,
    threshold: float,
    device: str = "auto",
    precision: str = "auto",
) -> tuple[int, int]:
    """Write a table of tags: a row per photo, with the probability of each word.

    The probabilities of a photo are a softmax over all words and CLIP-ES's background words. Its
    tags are the words from the threshold on, the most probable first; there may be none. CLIP sees
    each photo at the size of its training: the class token knows no other.

    Args:
        words: to choose from.
        out: table to write (CSV); readers of tags take its columns image and tags.
        cache: folder for weights and text embeddings.
        threshold: least probability of a tag.
        precision: as ``compute.precision``.

    Returns:
        Number of photos, and of those with a tag.

    Raises:
        ValueError: there is no such device or precision.
        DataError: there is no photo, or a word cannot be a class.
        ClipLoadError: the encoder cannot be built or its weights do not fit.
    """
    section(ComputeConfig, {"device": device, "precision": precision})
    classes = customise(folder_classes(words), {}, None)
    samples, _ = photos_below(folder)
    with computing(device, precision):
        inputs = EncoderInput(clip, cache, device=device)
        inputs.long_side = inputs.clip.image_size
        bank = text_bank(
            inputs.clip, classes.prompts, classes.backgrounds, clip.template, cache_dir=cache
        ).to(inputs.encoder.device)
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["image", "tags", *(f"p({name})" for name in classes.names)])
        rows = tagged = 0
        for sample, probs in _probabilities(samples, inputs, bank):
            order = np.argsort(-probs, kind="stable").tolist()
            tags = [classes.names[index] for index in order if probs[index] >= threshold]
            image = sample.path.relative_to(folder) if folder.is_dir() else sample.path.name
            numbers = (f"{probability:.4f}" for probability in probs)
            writer.writerow([image, TAG_SEPARATOR.join(tags), *numbers])
            rows += 1
            tagged += bool(tags)
    write_text(out, buffer.getvalue())
    return rows, tagged


def _probabilities(
    samples: Sequence[Sample], inputs: EncoderInput, bank: TextBank
) -> Iterator[tuple[Sample, Float32[np.ndarray, " classes"]]]:
    """Of each photo that can be read; the others are reported."""

    def of(sample: Sample) -> Float32[np.ndarray, " classes"] | ImageError:
        try:
            return class_probabilities(inputs, sample, bank)
        except ImageError as error:
            return error

    with one_thread_each() as threads:
        results = ordered_map(of, samples, threads=threads)
        tracked = track(results, total=len(samples), description="Looking for tags")
        for sample, probs in zip(samples, tracked, strict=True):
            if isinstance(probs, ImageError):
                left_out_photo(sample.path, probs.reason)
            else:
                yield sample, probs
