"""The CAM sources that run the frozen CLIP, `grad_cam` and `patch_text`, and their affinity.

`grad_cam` is softmax Grad-CAM (CLIP-ES), `patch_text` the similarity of patches and texts (ExCEL).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import torch
from jaxtyping import Float, Float16
from numpy import ndarray
from torch import Tensor

from wsss.artifacts.digest import digest_json
from wsss.cams.affinity import propagate
from wsss.cams.grad_cam import grad_cam
from wsss.cams.maps import BatchCams, CamMaps, scale_maps
from wsss.cams.other_features import OtherFeatures, weights_of
from wsss.cams.patch_affinity import check_compares_texts, pair_factor, pair_weights
from wsss.cams.patch_text import PatchText
from wsss.cams.views import Classes, Evidence, fused_evidence
from wsss.clip.encoder import ClipEncoder
from wsss.clip.input import EncoderInput
from wsss.clip.text.attributes import described, enriched_bank
from wsss.clip.text.embeddings import TextBank, text_bank
from wsss.compute.device_memory import FittingBatches
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.cams import CamsConfig
from wsss.config.compute import ComputeConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample

_Batch = tuple[Sequence[Sample], Sequence[Float[Tensor, "batch 3 _ _"]]]
"""Samples of one input size, and their pixels at each scale."""


@torch.inference_mode()
def clip_cams(
    encoder: ClipEncoder,
    images: Sequence[Float[Tensor, "batch 3 _ _"]],
    classes: Sequence[Sequence[int]],
    bank: TextBank,
    cams: CamsConfig,
    other: OtherFeatures | None = None,
) -> tuple[BatchCams, Float[Tensor, "rows grid_height grid_width"] | None]:
    """CAMs of images of one size, by the configured source, on the grid of scale 1.

    Args:
        images: at each of ``cams.scales``, normalised; sides are multiples of the patch.
        classes: indices into ``bank.classes`` of each image; may be empty for an image.
        bank: text features; enriched for `patch_text` with TSE.
        cams: source, its settings, scales, mirroring and the affinity.
        other: features of another encoder, for an affinity that compares them.

    Returns:
        The CAMs, and the same after the affinity, both in 0 … 1; None where the affinity is off.

    Raises:
        UnsupportedEncoderError: texts are compared with patches, of which it embeds none.
    """
    affinity = cams.affinity
    if cams.compares_texts:
        check_compares_texts(encoder)
    patch_text = PatchText(encoder, bank, cams.patch_text) if cams.source == "patch_text" else None

    def gradients(
        images: Float[Tensor, "batch 3 height width"],
        classes: Classes,
        attention_blocks: int,
        features: bool,
    ) -> Evidence:
        also = (attention_blocks, features)
        raw = grad_cam(encoder, images, classes, bank, cams.gradient, *also)
        maps, patches = raw.maps.relu(), float(raw.maps.shape[1] * raw.maps.shape[2])
        # The gradient of the mean over the patches is averaged over the patches.
        of_image = (raw.probabilities, raw.attention, raw.features)
        return Evidence(raw.image_index, maps, patches, None, *of_image)

    evidence = fused_evidence(
        patch_text.evidence if patch_text else gradients,
        images,
        classes,
        base=cams.scales.index(1.0),
        flip=cams.flip,
        attention_blocks=affinity.blocks_of(encoder.depth) if cams.has_affinity else 0,
        features=cams.has_affinity and affinity.uses_clip,
    )
    scale = patch_text.scaled if patch_text else lambda raw: scale_maps(raw.maps, cams.scaling)
    cams_of = (evidence.image_index, scale(evidence), evidence.probabilities)
    if not cams.has_affinity:
        return BatchCams(*cams_of, None), None
    needed = {"attention": affinity.uses_attention, "features": affinity.uses_clip}
    if lacking := [name for name, is_read in needed.items()
                   if is_read and getattr(evidence, name) is None]:  # fmt: skip
        raise ValueError(
            f"cams.source {cams.source} returned Evidence without {' and '.join(lacking)}, which "
            f"cams.affinity.kind {affinity.kind} reads; return it, or set cams.affinity.enabled: "
            "false"
        )
    features = evidence.features
    if other is not None:
        grid = (evidence.maps.shape[1], evidence.maps.shape[2])
        features = other(images[cams.scales.index(1.0)], grid)
    factor = None if features is None else pair_factor(features, bank, affinity)
    batch = BatchCams(*cams_of, pair_weights(evidence.attention, factor))
    assert batch.attention is not None
    return batch, propagate(batch.attention, batch.maps, batch.image_index, cams)


class ClipSource:
    """CAMs of a data set's photographs from the frozen encoder.

    On a CPU the unit of work is one image on one thread, so that a map does not depend on the
    batch, the shard or the number of threads. On a GPU images of the same input size are batched.

    Args:
        classes: the class list, with its prompt words.
        cams: the source and the affinity.
        compute: batch and workers on a GPU.
        other: see `clip_cams`.

    Raises:
        KnowledgeError: TSE is on and a class has no description.
    """

    def __init__(
        self,
        inputs: EncoderInput,
        classes: ClassList,
        template: Sequence[str],
        cams: CamsConfig,
        compute: ComputeConfig,
        cache: Path,
        other: OtherFeatures | None = None,
    ) -> None:
        self._input, self._cams, self._compute = inputs, cams, compute
        self._other = other
        self.weights: Mapping[str, str] = weights_of(inputs, other)
        self._classes = classes
        is_own = cams.source == "grad_cam" and not cams.compares_texts
        self._texts = "" if is_own else digest_json(classes.prompts)
        if cams.source == "patch_text":
            tse = cams.patch_text.tse
            bank = enriched_bank(inputs.clip, classes, template, tse, cache)
            self._texts = digest_json([classes.prompts, described(classes, tse)])
        else:
            words = (classes.prompts, classes.backgrounds, template)
            bank = text_bank(inputs.clip, *words, cache_dir=cache)
        self._bank = bank.to(inputs.encoder.device)
        self._parts = FittingBatches(
            "lower clip.long_side or cams.scales, or set compute.device to cpu"
        )

    def key(self, sample: Sample) -> str:
        """Digest of the words that its maps depend on: those of its own tags and the backgrounds.

        Those of all classes count for an affinity of kind ``distribution`` and for each source but
        `grad_cam`: `patch_text` compares with all of them, and uses their descriptions.
        """
        own = [self._classes.prompts[tag] for tag in sample.tags]
        return digest_json([own, self._classes.backgrounds, self._texts])

    def maps(self, samples: Sequence[Sample]) -> Iterator[CamMaps]:
        """The maps of the samples, in any order; those of an image do not depend on the others.

        Raises:
            ValueError: images are too large for the encoder's attention.
        """
        self._input.check_sizes(samples, max(self._cams.scales))
        if self._input.encoder.device.type == "cpu":
            with one_thread_each() as threads:
                for stacks in ordered_map(self._single, samples, threads=threads):
                    yield from stacks
            return
        # Photographs of the next batches are decoded while the GPU works on this one.
        batches = same_size_batches(samples, self._input, self._compute.batch)
        for batch in ordered_map(self._load, batches, threads=self._compute.workers):
            yield from self._fitting(batch)

    def _fitting(self, batch: _Batch) -> list[CamMaps]:
        """Maps of a batch, in parts if it does not fit into the memory of the GPU."""
        samples, images = batch
        return self._parts.run(
            lambda part: self._maps((samples[part], [of_scale[part] for of_scale in images])),
            len(samples),
            bytes_each=max(self._input.bytes_per_image(*i.shape[-2:]) for i in images),
        )

    def _single(self, sample: Sample) -> list[CamMaps]:
        return self._maps(self._load([sample]))

    def _load(self, samples: Sequence[Sample]) -> _Batch:
        views = [self._input.views(sample, self._cams.scales) for sample in samples]
        return samples, [torch.stack(of_scale) for of_scale in zip(*views, strict=True)]

    def _maps(self, batch: _Batch) -> list[CamMaps]:
        """Maps of images of one input size."""
        samples, images = batch
        tags = [sample.tags for sample in samples]
        counts = [len(row) for row in tags]
        settings = (self._bank, self._cams, self._other)
        cams, propagated = clip_cams(self._input.encoder, images, tags, *settings)
        stacks = _float16_stacks(cams.maps, counts)
        affinity_stacks: Sequence[Float16[ndarray, "classes h w"] | None] = [None] * len(samples)
        if propagated is not None:
            affinity_stacks = _float16_stacks(propagated, counts)
        probs = [tuple(part.tolist()) for part in cams.probabilities.float().cpu().split(counts)]
        return [CamMaps(*row) for row in zip(samples, stacks, affinity_stacks, probs, strict=True)]


def same_size_batches(
    samples: Sequence[Sample], inputs: EncoderInput, batch: int
) -> Iterator[list[Sample]]:
    """Batches of at most ``batch`` images of equal input size."""
    for _, same in groupby(sorted(samples, key=inputs.size), key=inputs.size):
        group = list(same)
        for start in range(0, len(group), batch):
            yield group[start : start + batch]


def _float16_stacks(
    maps: Float[Tensor, "rows h w"], counts: list[int]
) -> list[Float16[ndarray, "classes h w"]]:
    """Packed rows to one stack per image, as they are stored."""
    return [part.numpy() for part in maps.half().cpu().split(counts)]  # one wait for a GPU
