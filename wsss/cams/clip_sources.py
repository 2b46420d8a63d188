"""The CAM sources that look through the frozen CLIP, `grad_cam` and `patch_text`, and its affinity.

`grad_cam` is softmax Grad-CAM (CLIP-ES), `patch_text` the similarity of patches and texts (ExCEL).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float16, Int
from numpy import ndarray
from torch import Tensor

from wsss.artifacts.digest import digest_json
from wsss.cams.affinity import spread_as_configured
from wsss.cams.grad_cam import grad_cam
from wsss.cams.maps import scale_maps
from wsss.cams.patch_text import PatchText
from wsss.cams.sources import CamMaps
from wsss.clip.input import EncoderInput
from wsss.clip.text.attributes import described, enriched_bank
from wsss.clip.text.embeddings import text_bank
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.base import Section
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample

_Batch = tuple[Sequence[Sample], Float[Tensor, "batch 3 height width"]]


@dataclass(frozen=True)
class Looked:
    """What a source saw on a batch; rows are packed, those of the first image, of the second …"""

    owner: Int[Tensor, " rows"]
    """The image of each row."""
    maps: Float[Tensor, "rows height width"]
    """In 0 … 1."""
    probabilities: Float[Tensor, " rows"]
    """Of the class on the image, among the image's classes and the backgrounds."""
    attention: Float[Tensor, "batch tokens tokens"] | None
    """Mean attention along which the maps are spread, class token included; None without."""


class ClipSource:
    """What the sources that look at photographs through the frozen encoder share.

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
        self.weights: Mapping[str, str] = {"clip": self._input.clip.digest}
        self._words = digest_json((classes.prompts, classes.backgrounds))

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
        counts = [len(sample.tags) for sample in samples]
        found = self._look(images, [sample.tags for sample in samples])
        rows = _halves(found.maps, counts)
        sure = [tuple(part.tolist()) for part in found.probabilities.float().cpu().split(counts)]
        refined: list[Any] = [None] * len(samples)
        if found.attention is not None:
            weights = found.attention[:, 1:, 1:]
            refined = _halves(
                spread_as_configured(weights, found.maps, found.owner, self._cams), counts
            )
        return [CamMaps(*parts) for parts in zip(samples, rows, refined, sure, strict=True)]

    def _look(
        self, images: Float[Tensor, "batch 3 height width"], tags: Sequence[Sequence[int]]
    ) -> Looked:
        """Maps in 0..1 of the tags of each image, and attention where the affinity needs it."""
        raise NotImplementedError


class GradCamSource(ClipSource):
    """The CAM source `grad_cam`; see `ClipSource`."""

    def __init__(self, config: Config, classes: ClassList, cache: Path) -> None:
        super().__init__(config, classes, cache)
        words = (classes.prompts, classes.backgrounds, config.clip.template)
        bank = text_bank(self._input.clip, *words, cache_dir=cache)
        self._bank = bank.to(self._encoder.device)

    def _look(
        self, images: Float[Tensor, "batch 3 height width"], tags: Sequence[Sequence[int]]
    ) -> Looked:
        cams = self._cams
        found = grad_cam(
            self._encoder,
            images,
            tags,
            self._bank,
            gradient=cams.gradient,
            attention_blocks=cams.affinity.last_blocks if cams.has_affinity else 0,
        )
        maps = scale_maps(found.maps.relu(), cams.scaling)
        return Looked(found.owner, maps, found.probabilities, found.attention)


class PatchTextSource(ClipSource):
    """The CAM source `patch_text`; see `ClipSource`.

    Raises:
        KnowledgeError: TSE is on and a class has no description.
    """

    def __init__(self, config: Config, classes: ClassList, cache: Path) -> None:
        super().__init__(config, classes, cache)
        settings = self._cams.patch_text
        words = (classes, config.clip.template, settings.tse)
        bank = enriched_bank(self._input.clip, *words, cache)
        self._scores = PatchText(self._encoder, bank, settings)
        self._words = digest_json([self._words, described(classes, settings.tse)])

    def _look(
        self, images: Float[Tensor, "batch 3 height width"], tags: Sequence[Sequence[int]]
    ) -> Looked:
        scores, cams, depth = self._scores, self._cams, self._encoder.depth
        count = cams.affinity.last_blocks if cams.has_affinity else 0
        blocks = range(depth - count, depth)
        mixed = cams.patch_text.attention == "mixed"
        beside = scores.calibration()
        encoding = self._encoder.run(
            images,
            attention_of=blocks if mixed else (),
            attention_sum_of=() if mixed else blocks,
            beside=beside,
            class_token_last=beside is not None,
        )
        tokens = encoding.tokens
        attention = encoding.attention_sum
        if mixed and count:
            weighed = [encoding.attention[n] * scores.attention_weight(n) for n in blocks]
            attention = torch.stack(weighed).sum(0)
        owner = torch.tensor([i for i, one in enumerate(tags) for _ in one], dtype=torch.long)
        classes = torch.tensor([k for one in tags for k in one], dtype=torch.long)
        owner, classes = owner.to(self._encoder.device), classes.to(self._encoder.device)
        features = scores.features(tokens if beside is None else beside.stream(tokens))
        return Looked(
            owner,
            scores.maps(features, encoding.grid, owner, classes),
            scores.probabilities(features, owner, classes),
            None if attention is None else attention / count,
        )


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
