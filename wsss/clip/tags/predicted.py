"""The classes that CLIP sees in a photograph, without any training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32

from wsss.artifacts.digest import digest_json
from wsss.artifacts.item_cache import write_items
from wsss.artifacts.shard import Item, Shard
from wsss.artifacts.stage import STAGES
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import TextBank, text_bank
from wsss.compute.threads import one_thread_each, ordered_map
from wsss.config.clip import ClipConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample


def write_probabilities(
    out: Path,
    samples: Sequence[Sample],
    classes: ClassList,
    cache: Path,
    *,
    max_pixels: int,
    clip: ClipConfig,
    device: str,
) -> dict[str, str]:
    """Write the probability of each class on each photograph; unchanged ones are taken over.

    Items have the array ``probabilities`` float32 [classes]: a softmax over the scaled cosines of
    the image's feature with the prompts of all classes and backgrounds.

    Args:
        out: shard of kind ``tags`` to write.
        classes: prompt words and background words.
        cache: folder for weights and text embeddings.
        max_pixels: largest photograph that is read.
        clip: the encoder, its input and the template of the prompts.

    Returns:
        sha256 of the weights, by name.

    Raises:
        ClipLoadError: the encoder cannot be built or its weights do not fit.
        ValueError: images are too large for the encoder's attention.
    """
    inputs = EncoderInput(clip, cache, max_pixels=max_pixels, device=device)
    inputs.check_sizes(samples)
    words = (classes.prompts, classes.backgrounds, clip.template)
    bank = text_bank(inputs.clip, *words, cache_dir=cache).to(inputs.encoder.device)
    weights = {"clip": inputs.clip.digest}
    values = {"max_pixels": max_pixels, "clip": clip}
    provenance = STAGES["clip_tags"].provenance(values, weights=weights)
    key = digest_json([provenance.key(), classes.prompts, classes.backgrounds])
    keys = {sample.id: digest_json([key, sample.digest]) for sample in samples}
    sample_of = {sample.id: sample for sample in samples}

    def compute_items(ids: list[str]) -> Iterator[Item]:
        def item(image: str) -> Item:
            probs = class_probabilities(inputs, sample_of[image], bank)
            return Item(image, {"probabilities": probs}, {}, keys[image])

        with one_thread_each() as threads:
            yield from ordered_map(item, ids, threads=threads)

    write_items(
        out,
        kind="tags",
        keys=keys,
        provenance=provenance,
        compute=compute_items,
        description="CLIP's tags",
    )
    return weights


@torch.inference_mode()
def class_probabilities(
    inputs: EncoderInput, sample: Sample, bank: TextBank
) -> Float32[np.ndarray, " classes"]:
    """The probability of each class on a photograph, among all classes and backgrounds.

    The image's feature is the encoder's own, of CLIP that of the class token. The scores of
    Grad-CAM take the mean of the patches instead.
    """
    encoder = inputs.encoder
    feature = encoder.encode_image(inputs.pixels(sample)[None])
    texts = torch.cat([bank.classes, bank.backgrounds])
    logits = encoder.logit_scale * F.normalize(feature, dim=-1) @ texts.T  # (1, classes + words)
    probs: np.ndarray = logits.softmax(-1)[0, : len(bank.classes)].cpu().numpy()
    return probs


def predicted_tags(shard: Path, threshold: float) -> Mapping[str, tuple[int, ...]]:
    """The tags of each image of a shard, the most probable first; at least one.

    Args:
        shard: what `write_probabilities` wrote.
        threshold: a class is a tag from this probability on.
    """
    tags: dict[str, tuple[int, ...]] = {}
    with Shard(shard, kind="tags") as items:
        for item in items:
            probs = item.arrays["probabilities"]
            order = np.argsort(-probs, kind="stable").tolist()
            tags[item.id] = tuple(k for k in order if k == order[0] or probs[k] >= threshold)
    return tags
