"""TSE: class texts enriched with attributes that descriptions of all classes share (ExCEL).

Eq. 1-4 of docs/methods/excel.md. Sentences of the knowledge base are embedded and clustered; the
centres are the attributes. Each class text is enriched with the attributes most similar to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wsss.clip.load import LoadedClip
from wsss.clip.text.embeddings import TextBank, text_bank
from wsss.clip.text.knowledge import Knowledge, descriptions, without_prompt
from wsss.compute.threads import fixed_threads
from wsss.config.cams import TseConfig
from wsss.config.paths import expand_path
from wsss.data.datasets.classes import ClassList

_CLUSTERS_PER_SENTENCE = 0.28  # as published for VOC
_STARTS = 10  # of k-means


@dataclass(frozen=True)
class AttributeBank:
    """The attributes, and which classes they describe."""

    centres: Float[Tensor, "attributes embed_dim"]
    """Of the clusters, not scaled to unit length."""
    class_mask: Bool[Tensor, "classes attributes"]
    """True where a sentence of the class is in the cluster."""


def enriched_bank(
    clip: LoadedClip,
    classes: ClassList,
    template: Sequence[str],
    tse: TseConfig,
    cache_dir: Path | None = None,
) -> TextBank:
    """Class and background texts; the classes are enriched as configured (eq. 4).

    Args:
        classes: names, prompt words and backgrounds.

    Raises:
        KnowledgeError: a class has no description.
    """
    bank = text_bank(clip, classes.prompts, classes.backgrounds, template, cache_dir=cache_dir)
    if tse.form == "off":
        return bank
    attributes = attribute_bank(clip, described(classes, tse), template[0], tse, cache_dir)
    with fixed_threads(1):  # as the embeddings: sums do not depend on the machine's threads
        return replace(bank, classes=enrich(bank.classes, attributes.centres, tse))


def described(classes: ClassList, tse: TseConfig) -> Knowledge:
    """The configured sentences of every class; none where TSE is off.

    Raises:
        KnowledgeError: a class has no description.
    """
    if tse.form == "off":
        return {}
    return descriptions(classes, expand_path(tse.knowledge) if tse.knowledge else None)


def attribute_bank(
    clip: LoadedClip,
    sentences: Mapping[str, Sequence[str]],
    template: str,
    tse: TseConfig,
    cache_dir: Path | None = None,
) -> AttributeBank:
    """Embed the sentences of all classes and cluster them (eq. 1).

    Args:
        sentences: by class.
        template: of the prompt that precedes a sentence where ``tse.prefix`` is ``class``. A
            sentence that already begins with a prompt keeps it, with the class name in it.
        tse: prefix and number of clusters.
    """
    texts, class_index = [], []
    for index, (name, lines) in enumerate(sentences.items()):
        prefix = f"{template.replace('{}', name)} " if tse.prefix == "class" else ""
        for line in lines:
            bare = without_prompt(line, template)
            own_prompt = tse.prefix == "class" and bare != line
            texts.append((line if own_prompt else prefix + bare).lower())
        class_index += [index] * len(lines)
    features = text_bank(clip, texts, (), ["{}"], cache_dir=cache_dir).classes
    count = tse.clusters or max(1, round(_CLUSTERS_PER_SENTENCE * len(texts)))
    centres, labels = _cluster(features, min(count, len(texts)))
    class_mask = torch.zeros(len(sentences), len(centres), dtype=torch.bool)
    class_mask[torch.tensor(class_index), labels] = True
    return AttributeBank(centres, class_mask)


def attribute_weights(
    texts: Float[Tensor, "classes embed_dim"],
    attributes: Float[Tensor, "attributes embed_dim"],
    tse: TseConfig,
) -> Float[Tensor, "classes attributes"]:
    """Softmax weights of the attributes for each class; rows sum to one (eq. 2 and 3).

    Args:
        texts: unit vectors of the classes.
        attributes: centres of the bank.
    """
    if tse.centering:
        texts = F.normalize(texts - texts.mean(0), dim=-1)
        attributes = F.normalize(attributes - attributes.mean(0), dim=-1)
    scores = texts @ attributes.T
    # As published: int((1 - 0.9) * 112) drops 11.
    dropped = min(int((1 - tse.top_share) * len(attributes)), len(attributes) - 1)
    if dropped:
        lowest = scores.topk(dropped, dim=1, largest=False).indices
        scores = scores.scatter(1, lowest, -torch.inf)
    return torch.softmax(scores / tse.temperature, dim=1)


def enrich(
    texts: Float[Tensor, "classes embed_dim"],
    attributes: Float[Tensor, "attributes embed_dim"],
    tse: TseConfig,
) -> Float[Tensor, "classes embed_dim"]:
    """Unit vectors of class texts with their attributes added (eq. 4).

    Args:
        texts: unit vectors.
        attributes: centres of the bank.
    """
    mean = attributes.mean(0, keepdim=True)
    if tse.form == "mean":
        update = mean
    else:
        directions = attributes - mean if tse.centering else attributes
        update = attribute_weights(texts, attributes, tse) @ directions
    return F.normalize(texts + tse.weight * update, dim=-1)


def _cluster(
    features: Float[Tensor, "texts embed_dim"], count: int
) -> tuple[Float[Tensor, "clusters embed_dim"], Tensor]:
    """k-means, the same on every machine up to rounding: float64, one thread, fixed start."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    points = features.double().cpu().numpy()
    with threadpool_limits(1):
        kmeans = KMeans(count, n_init=_STARTS, random_state=0, algorithm="lloyd").fit(points)
    centres = torch.from_numpy(kmeans.cluster_centers_.astype(np.float32))
    return centres, torch.from_numpy(kmeans.labels_.astype(np.int64))
