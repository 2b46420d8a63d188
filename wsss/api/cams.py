"""Class activation maps of a photo from a frozen CLIP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from wsss.api.clip import Clip, check_clip
from wsss.api.inputs import (
    Photo,
    argument_names,
    check_maps,
    mapping_of,
    options_of,
    read_image,
    section,
    texts_of,
)
from wsss.api.results import ClassMaps
from wsss.cams.affinity import propagate as propagate_rows
from wsss.cams.clip_sources import clip_cams
from wsss.clip.text.attributes import attribute_bank, enrich
from wsss.clip.text.embeddings import TextBank
from wsss.config.cams import AffinityConfig, CamsConfig, TseConfig
from wsss.data.counted import first_names
from wsss.data.datasets.classes import (
    ClassList,
    customise,
    folder_classes,
    nearest,
    spelling,
    spellings,
)
from wsss.data.errors import DataError


@argument_names()
def grad_cam(
    clip: Clip,
    photo: Photo,
    tags: Iterable[str],
    backgrounds: Iterable[str] | None = None,
    *,
    classes: Iterable[str] | None = None,
    prompts: Mapping[str, str] | None = None,
    affinity: bool | Mapping[str, Any] = True,
    box_threshold: float | None = 0.4,
) -> ClassMaps:
    """Softmax Grad-CAM of a photo's tags (CLIP-ES, eq. 5-19 of docs/methods/clip-es.md).

    Args:
        clip: from `load_clip`.
        photo: see `read_image`.
        tags: what is on the photo.
        backgrounds: words of what may be behind it, which compete with the tags (``grass``, ``sky``
            …); None takes CLIP-ES's list without the tags.
        classes: all classes of the data set, which an affinity of kind ``distribution`` compares
            the patches with; None takes the tags.
        prompts: words that stand for a tag in the prompts, e.g. ``{"bird": "bird avian"}``.
        affinity: also propagate the maps; options of ``cams.affinity``: ``{"kind": "joined"}``.
        box_threshold: see `propagate`.

    Raises:
        TypeError: an argument is no list of texts, or no mapping.
        DataError: a tag is missing, empty, doubled or no class, or a background is a class.
        ValueError: the photo is too large for the encoder's attention: set ``long_side``.
    """
    check_clip(clip)
    tags = _tags(tags)
    listed = _classes(tags if classes is None else classes, backgrounds, prompts)
    cams = CamsConfig(source="grad_cam", affinity=_affinity(affinity, box_threshold))
    with clip.computing():
        return _class_maps(clip, photo, tags, listed, clip.texts(listed), cams)


@argument_names()
def patch_text_cams(
    clip: Clip,
    photo: Photo,
    tags: Iterable[str],
    backgrounds: Iterable[str] | None = None,
    *,
    classes: Iterable[str] | None = None,
    prompts: Mapping[str, str] | None = None,
    descriptions: Mapping[str, Iterable[str]] | None = None,
    affinity: bool | Mapping[str, Any] = True,
    box_threshold: float | None = 0.4,
) -> ClassMaps:
    """Similarity of patches and tags, without a gradient: ExCEL, eq. 1-13 of docs/methods/excel.md.

    Args:
        clip: from `load_clip`.
        photo: see `read_image`.
        tags: what is on the photo.
        backgrounds: see `grad_cam`.
        classes: all classes of the data set; what their texts have in common is subtracted. None
            takes the tags.
        prompts: see `grad_cam`.
        descriptions: sentences on each class, which enrich its text (TSE); a few words on a few
            classes change little, ExCEL takes about twenty on each.
        affinity: see `grad_cam`.
        box_threshold: see `propagate`.

    Raises:
        TypeError: as `grad_cam`.
        DataError: as `grad_cam`; or a tag is none of the classes, or a class has no description.
        ValueError: the photo is too large for the encoder's attention: set ``long_side``.
    """
    check_clip(clip)
    tags = _tags(tags)
    listed = _classes(tags if classes is None else classes, backgrounds, prompts)
    by_name: dict[str, Sequence[str]] = {}
    if descriptions is not None:
        given = mapping_of("descriptions", descriptions, "sentences by class: {'cat': ['it …']}")
        by_spelling = {
            spelling(name): texts_of(f"descriptions of {name!r}", lines)
            for name, lines in given.items()
        }
        by_name = {name: by_spelling.get(spelling(name), ()) for name in listed.names}
        if lacking := [name for name, lines in by_name.items() if not lines]:
            raise DataError(f"descriptions: there is none of {', '.join(lacking)}")
    cams = CamsConfig(source="patch_text", affinity=_affinity(affinity, box_threshold))
    with clip.computing():
        texts = clip.texts(listed)
        if by_name:
            tse = TseConfig(form="topk")
            attributes = attribute_bank(clip.inputs.clip, by_name, clip.template[0], tse)
            texts = replace(texts, classes=enrich(texts.classes, attributes.centres, tse))
        return _class_maps(clip, photo, tags, listed, texts, cams)


@torch.inference_mode()
def propagate(
    attention: np.ndarray,
    maps: np.ndarray,
    *,
    box_threshold: float | None = 0.4,
    power: int = 2,
    iterations: int = 3,
) -> Float32[np.ndarray, "maps rows columns"]:
    """Propagate maps along attention (eq. 14-19 of docs/methods/clip-es.md).

    Args:
        attention: float [tokens, tokens], rows are queries; a class token may stand in front of the
            patches. ``ClassMaps.attention`` and ``Clip.attention(photo)`` are such.
        maps: float [maps, rows, columns] in 0 … 1, on the grid of patches.
        box_threshold: share of a map's maximum that a box encloses; a map counts in its boxes only
            (0.4 for VOC, 0.7 for COCO). None: no boxes.
        power: of the transition matrix.
        iterations: of normalising its columns and rows.

    Returns:
        Maps in 0 … 1.

    Raises:
        ValueError: the arrays are not of these shapes, do not fit each other, or hold NaN or
            values out of range.
    """
    check_maps("maps", maps)
    patches = maps.shape[1] * maps.shape[2]
    check_maps("attention", attention, "tokens, tokens", most=math.inf)
    if attention.shape[0] != attention.shape[1] or len(attention) not in {patches, patches + 1}:
        raise ValueError(
            f"attention {list(attention.shape)} does not fit maps on a grid of "
            f"{maps.shape[1]} x {maps.shape[2]} patches"
        )
    options = {"box_threshold": box_threshold, "power": power, "sinkhorn_iterations": iterations}
    settings = section(AffinityConfig, options, {"sinkhorn_iterations": "iterations"})
    rows = torch.from_numpy(maps.astype(np.float32))
    weights = torch.from_numpy(attention.astype(np.float32))[None]
    image_index = torch.zeros(len(rows), dtype=torch.long)
    return propagate_rows(weights, rows, image_index, CamsConfig(affinity=settings)).numpy()


def _affinity(options: bool | Mapping[str, Any], box_threshold: float | None) -> AffinityConfig:
    values = {"box_threshold": box_threshold} | options_of("affinity", options)
    affinity = section(AffinityConfig, values)
    if not affinity.uses_dino:
        return affinity
    raise ValueError("no DINOv2 is loaded here; give wsss.propagate its affinity of patches")


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    if not (listed := texts_of("tags", tags)):
        raise DataError("there is no tag; name what is on the photo")
    return listed


def _classes(
    classes: Iterable[str],
    backgrounds: Iterable[str] | None,
    prompts: Mapping[str, str] | None,
) -> ClassList:
    if prompts is not None:
        prompts = mapping_of("prompts", prompts, "words by class: {'bird': 'bird avian'}", str)
    behind = None if backgrounds is None else texts_of("backgrounds", backgrounds)
    return customise(folder_classes(texts_of("classes", classes)), prompts or {}, behind)


def _class_maps(
    clip: Clip,
    photo: Photo,
    tags: tuple[str, ...],
    classes: ClassList,
    texts: TextBank,
    cams: CamsConfig,
) -> ClassMaps:
    image = read_image(photo)
    indices = spellings(classes)
    if unknown := [tag for tag in tags if spelling(tag) not in indices]:
        near = nearest(unknown[0], classes.names)
        listed = f"; the classes are {first_names(classes.names)}"
        raise DataError(f"{unknown[0]!r} is no class{near or listed}")
    rows = [indices[spelling(tag)] for tag in tags]
    if len(set(rows)) < len(rows):
        raise DataError(f"tags: {', '.join(tags)}: a class is named twice")
    clip.blocks_of(cams.affinity)
    pixels = clip.pixels(image)
    bank = texts.to(clip.inputs.encoder.device)
    batch, propagated = clip_cams(clip.inputs.encoder, [pixels], [rows], bank, cams)

    def array(tensor: torch.Tensor) -> Float32[np.ndarray, ...]:
        return tensor.float().cpu().numpy()

    return ClassMaps(
        image,
        tags,
        array(batch.maps),
        None if propagated is None else array(propagated),
        array(batch.probabilities),
        None if batch.attention is None else array(batch.attention[0]),
    )
