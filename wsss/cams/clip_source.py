"""The CAM source `grad_cam`: softmax Grad-CAM of the frozen CLIP, and its attention affinity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wsss.artifacts.digest import digest_json
from wsss.cams.affinity import refine_maps, sinkhorn
from wsss.cams.grad_cam import grad_cam
from wsss.cams.maps import scale_maps
from wsss.cams.sources import CamMaps
from wsss.clip.encoder import ClipEncoder
from wsss.clip.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    input_size,
    normalize_image,
    resize_image,
)
from wsss.clip.load import load_clip
from wsss.clip.text import TextBank, text_bank
from wsss.clip.threads import one_thread_each, ordered_map
from wsss.config import Config, expand_path
from wsss.config.base import Section
from wsss.config.device import pick_device
from wsss.data.classes import ClassList
from wsss.data.image import read_image
from wsss.data.manifest import Sample


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
        settings = config.clip
        self.sections: Mapping[str, Section] = {"clip": config.clip, "cams": config.cams}
        self._cams, self._compute = config.cams, config.compute
        self._max_pixels, self._long_side = config.data.max_pixels, settings.long_side
        clip = load_clip(
            _local(settings.model), _local(settings.pretrained), cache_dir=cache / "open_clip"
        )
        self._device = pick_device(config.compute.device)
        position_rounding = settings.position_rounding
        assert position_rounding != "auto"
        self._encoder = ClipEncoder(
            clip.model.get_submodule("visual"),
            logit_scale=clip.logit_scale,
            precision=settings.precision,
            rounding=position_rounding,
            device=self._device,
        )
        imagenet = settings.normalization == "imagenet"
        self._mean = IMAGENET_MEAN if imagenet else clip.mean
        self._std = IMAGENET_STD if imagenet else clip.std
        self._bank: TextBank = text_bank(
            clip, classes.prompts, classes.backgrounds, settings.template, cache_dir=cache
        ).to(self._device)
        self.weights: Mapping[str, str] = {"clip": clip.digest}
        self._words = digest_json([classes.prompts, classes.backgrounds])

    def key(self, sample: Sample) -> str:
        """Digest of the prompt words."""
        return self._words

    def maps(self, samples: Sequence[Sample]) -> Iterator[CamMaps]:
        """See `CamSource.maps`."""
        if self._device.type == "cpu":
            with one_thread_each() as threads:
                yield from ordered_map(self._one, samples, threads=threads)
            return
        by_size = sorted(samples, key=self._size)
        for _, same in groupby(by_size, key=self._size):
            group = list(same)
            for start in range(0, len(group), self._compute.batch):
                batch = group[start : start + self._compute.batch]
                pixels = ordered_map(self._pixels, batch, threads=self._compute.workers)
                yield from self._batch(batch, torch.stack(list(pixels)))

    def _one(self, sample: Sample) -> CamMaps:
        return self._batch([sample], self._pixels(sample).unsqueeze(0))[0]

    def _size(self, sample: Sample) -> tuple[int, int]:
        return input_size(
            sample.height, sample.width, self._encoder.patch, long_side=self._long_side
        )

    def _pixels(self, sample: Sample) -> Float[Tensor, "3 height width"]:
        photo = read_image(sample.path, max_pixels=self._max_pixels)
        return normalize_image(resize_image(photo, self._size(sample)), self._mean, self._std)

    def _batch(
        self, samples: Sequence[Sample], images: Float[Tensor, "batch 3 height width"]
    ) -> list[CamMaps]:
        """Maps of images of one input size."""
        cams, affinity = self._cams, self._cams.affinity
        assert cams.gradient != "auto"
        assert cams.scaling != "auto"
        assert affinity.box_edge != "auto"
        tags = [sample.tags for sample in samples]
        found = grad_cam(
            self._encoder,
            images,
            tags,
            self._bank,
            gradient=cams.gradient,
            attention_blocks=affinity.last_blocks if affinity.enabled else 0,
        )
        maps = scale_maps(found.maps.relu(), cams.scaling)
        spread = None
        if affinity.enabled:
            assert found.attention is not None
            spread = refine_maps(
                sinkhorn(found.attention, rounds=affinity.sinkhorn_rounds, power=affinity.power),
                maps,
                found.owner,
                box_threshold=affinity.box_threshold,
                box_edge=affinity.box_edge,
            )
            spread = scale_maps(spread, cams.scaling)
        counts = [len(one) for one in tags]  # packed rows -> one stack an image
        rows = _half(maps, counts)
        refined = [None] * len(counts) if spread is None else _half(spread, counts)
        return [CamMaps(*parts) for parts in zip(samples, rows, refined, strict=True)]


def _half(maps: Float[Tensor, "rows h w"], counts: list[int]) -> list[np.ndarray]:
    return [part.half().cpu().numpy() for part in maps.split(counts)]


def _local(text: str) -> str:
    """The path where ``text`` names a file here, else ``text``: a model name or a tag."""
    path = expand_path(text)
    return str(path) if path.is_file() or path.suffix in {".json", ".safetensors", ".pt"} else text
