"""Work on the photos of a data set, in parallel where that changes no result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch

from wsss.clip.input import EncoderInput
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.data.manifest import Sample
from wsss.refine.base import Refiner
from wsss.refine.photo_scaler import Photo

Result = TypeVar("Result")
Subject = TypeVar("Subject")


def on_photos(
    inputs: EncoderInput,
    subjects: Iterable[tuple[Sample, Subject]],
    function: Callable[[Photo, Subject], Result],
    *,
    in_turn: bool = False,
) -> Iterator[Result]:
    """Apply a function to photos and what belongs to them, in their order.

    On a CPU one photo on one thread, so that a result depends on nothing else; on a GPU photos are
    decoded ahead, and used one by one.

    Args:
        subjects: sample, and what the function is given with the photo.
        in_turn: one at a time in any case (it draws random numbers).
    """

    def load(task: tuple[Sample, Subject]) -> tuple[Photo, Subject]:
        return inputs.photo(task[0]), task[1]

    if inputs.encoder.device.type != "cpu":
        for photo, subject in ordered_map(load, subjects, threads=2):
            yield function(photo, subject)
        return
    with one_thread_each() as threads:
        units = 1 if in_turn else threads
        yield from ordered_map(lambda task: function(*load(task)), subjects, threads=units)


def seed_for(refiner: Refiner[Any], sample: Sample) -> None:
    """Let random numbers, where inference draws any, depend on the image alone."""
    if refiner.draws_at_inference:
        torch.manual_seed(int(sample.digest[:15], 16))
