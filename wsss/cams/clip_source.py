"""The CAM source `grad_cam`: softmax Grad-CAM of the frozen CLIP, and its attention affinity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float16
from numpy import ndarray
from torch import Tensor

from wsss.artifacts.digest import digest_json
from wsss.cams.affinity import refine_as_configured
from wsss.cams.encoder_input import EncoderInput
from wsss.cams.grad_cam import grad_cam
from wsss.cams.maps import scale_maps
from wsss.cams.sources import CamMaps
from wsss.clip.text import TextBank, text_bank
from wsss.clip.threads import one_thread_each, ordered_map
from wsss.config import Config
from wsss.config.base import Section
from wsss.data.classes import ClassList
from wsss.data.manifest import Sample

_Batch = tuple[Sequence[Sample], Float[Tensor, "batch 3 height width"]]


class GradCamSource:
    """Grad-CAM over a data set.

    On a CPU the unit of work is one image on one thread, so that a map does not depend on the
    batch, the shard or the number of threads. On a GPU images of the same input size are batched.

    Args:
        config: data, clip, cams and compute.
        classes: the class list, with its prompt words.
        cache: folder for text embeddings.
    """

    def __init__(self, config: Config, classes: ClassList, cache: Path) -> None:
        self.sections: Mapping[str, Section] = {"clip": config.clip, "cams": config.cams}
        self._cams, self._compute = config.cams, config.compute
        self._input = EncoderInput(config, cache)
        self._encoder = self._input.encoder
        words = (classes.prompts, classes.backgrounds)
        self._bank: TextBank = text_bank(
            self._input.clip, *words, config.clip.template, cache_dir=cache
        ).to(self._encoder.device)
        self.weights: Mapping[str, str] = {"clip": self._input.clip.digest}
        self._words = digest_json(words)

    def key(self, sample: Sample) -> str:
        """Digest of the prompt words."""
        return self._words

    def maps(self, samples: Sequence[Sample]) -> Iterator[CamMaps]:
        """See `CamSource.maps`.

        Raises:
            ValueError: images are too large for the encoder's attention.
        """
        self._input.check_sizes(samples)
        if self._encoder.device.type == "cpu":
            with one_thread_each() as threads:
                for found in ordered_map(self._alone, samples, threads=threads):
                    yield from found
            return
        # Photographs of the next batches are decoded while the GPU works on this one.
        batches = same_size_batches(samples, self._input, self._compute.batch)
        for batch in ordered_map(self._load, batches, threads=self._compute.workers):
            yield from self._compute_maps(batch)

    def _alone(self, sample: Sample) -> list[CamMaps]:
        return self._compute_maps(self._load([sample]))

    def _load(self, samples: Sequence[Sample]) -> _Batch:
        return samples, torch.stack([self._input.pixels(sample) for sample in samples])

    @torch.inference_mode()
    def _compute_maps(self, batch: _Batch) -> list[CamMaps]:
        """Maps of images of one input size."""
        samples, images = batch
        cams, affinity = self._cams, self._cams.affinity
        assert cams.gradient != "auto"
        assert cams.scaling != "auto"
        tags = [sample.tags for sample in samples]
        found = grad_cam(
            self._encoder,
            images,
            tags,
            self._bank,
            gradient=cams.gradient,
            attention_blocks=affinity.last_blocks if cams.has_affinity else 0,
        )
        maps = scale_maps(found.maps.relu(), cams.scaling)
        counts = [len(one) for one in tags]
        rows = _halves(maps, counts)
        sure = [tuple(part.tolist()) for part in found.probabilities.float().cpu().split(counts)]
        refined: list[Any] = [None] * len(samples)
        if found.attention is not None:
            spread = refine_as_configured(found.attention, maps, found.owner, cams)
            refined = _halves(spread, counts)
        return [CamMaps(*parts) for parts in zip(samples, rows, refined, sure, strict=True)]


def same_size_batches(
    samples: Sequence[Sample], inputs: EncoderInput, batch: int
) -> Iterator[list[Sample]]:
    """Batches of at most ``batch`` images of equal input size."""
    for _, same in groupby(sorted(samples, key=inputs.size), key=inputs.size):
        group = list(same)
        for start in range(0, len(group), batch):
            yield group[start : start + batch]


def _halves(
    maps: Float[Tensor, "rows h w"], counts: list[int]
) -> list[Float16[ndarray, "classes h w"]]:
    """Packed rows to one stack an image, as they are stored."""
    return [part.half().cpu().numpy() for part in maps.split(counts)]
