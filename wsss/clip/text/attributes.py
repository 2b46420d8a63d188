"""TSE: class texts enriched with attributes that descriptions of all classes share (ExCEL).

Eq. 1-4 of docs/methods/excel.md. Sentences of the knowledge base are embedded and clustered; the
centres are the attributes. Each class takes up those that are most like it.
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
from wsss.clip.text.knowledge import Knowledge, descriptions
from wsss.config.cams import TseConfig
from wsss.config.paths import expand_path
from wsss.data.datasets.classes import ClassList

_SHARE = 0.28  # clusters a sentence, as published for VOC
_STARTS = 10  # of k-means; newer releases of scikit-learn would do with one


@dataclass(frozen=True)
class AttributeBank:
    """The attributes."""

    vectors: Float[Tensor, "attributes joint"]
    """Centres of the clusters, not scaled to unit length."""
    uses: Bool[Tensor, "classes attributes"]
    """Whether a sentence of the class is in the cluster."""


def enriched_bank(
    clip: LoadedClip,
    classes: ClassList,
    template: Sequence[str],
    tse: TseConfig,
    cache_dir: Path | None = None,
) -> TextBank:
    """Class and background texts, the classes enriched as configured (eq. 4).

    Args:
        clip: the model.
        classes: names, prompt words and backgrounds.
        template: of the prompts.
        tse: the section cams.patch_text.tse.
        cache_dir: where embeddings are kept.

    Raises:
        KnowledgeError: a class has no description.
    """
    bank = text_bank(clip, classes.prompts, classes.backgrounds, template, cache_dir=cache_dir)
    if tse.form == "off":
        return bank
    found = attribute_bank(clip, described(classes, tse), template[0], tse, cache_dir)
    return replace(bank, classes=enrich(bank.classes, found.vectors, tse))


def described(classes: ClassList, tse: TseConfig) -> Knowledge:
    """The sentences that the configuration names; none where TSE is off.

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
        clip: the model.
        sentences: by class.
        template: what stands before a sentence where ``tse.prefix`` is ``class``.
        tse: prefix and number of clusters.
        cache_dir: where embeddings are kept.
    """
    texts, owner = [], []
    for index, (name, lines) in enumerate(sentences.items()):
        prefix = f"{template.replace('{}', name)} " if tse.prefix == "class" else ""
        texts += [(prefix + line).lower() for line in lines]
        owner += [index] * len(lines)
    features = text_bank(clip, texts, (), ["{}"], cache_dir=cache_dir).classes
    count = tse.clusters or max(1, round(_SHARE * len(texts)))
    centres, labels = _cluster(features, min(count, len(texts)))
    uses = torch.zeros(len(sentences), len(centres), dtype=torch.bool)
    uses[torch.tensor(owner), labels] = True
    return AttributeBank(centres, uses)


def hunting_weights(
    texts: Float[Tensor, "classes joint"],
    attributes: Float[Tensor, "attributes joint"],
    tse: TseConfig,
) -> Float[Tensor, "classes attributes"]:
    """Share of every attribute in what a class takes up; rows sum to one (eq. 2 and 3).

    Args:
        texts: unit vectors of the classes.
        attributes: the bank.
        tse: keep, temperature and vectors.
    """
    if tse.centering:
        texts = F.normalize(texts - texts.mean(0), dim=-1)
        attributes = F.normalize(attributes - attributes.mean(0), dim=-1)
    scores = texts @ attributes.T
    # Written as published: int((1 - 0.9) * 112) drops 11.
    dropped = min(int((1 - tse.top_share) * len(attributes)), len(attributes) - 1)
    if dropped:
        lowest = scores.topk(dropped, dim=1, largest=False).indices
        scores = scores.scatter(1, lowest, -torch.inf)
    return torch.softmax(scores / tse.temperature, dim=1)


def enrich(
    texts: Float[Tensor, "classes joint"],
    attributes: Float[Tensor, "attributes joint"],
    tse: TseConfig,
) -> Float[Tensor, "classes joint"]:
    """Unit vectors of class texts with their attributes added.

    Args:
        texts: unit vectors.
        attributes: the bank.
        tse: form and weight.
    """
    mean = attributes.mean(0, keepdim=True)
    if tse.form == "mean":
        added = mean
    else:
        used = attributes - mean if tse.centering else attributes
        added = hunting_weights(texts, attributes, tse) @ used
    return F.normalize(texts + tse.weight * added, dim=-1)


def _cluster(
    features: Float[Tensor, "texts joint"], count: int
) -> tuple[Float[Tensor, "clusters joint"], Tensor]:
    """k-means, the same on every machine up to rounding: float64, one thread, fixed start."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    points = features.double().cpu().numpy()
    with threadpool_limits(1):
        found = KMeans(count, n_init=_STARTS, random_state=0, algorithm="lloyd").fit(points)
    centres = torch.from_numpy(found.cluster_centers_.astype(np.float32))
    return centres, torch.from_numpy(found.labels_.astype(np.int64))
