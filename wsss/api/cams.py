"""Class activation maps of a photo from a frozen CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from wsss.api.clip import Clip, check_clip
from wsss.api.inputs import Photo, argument_names, check_maps, check_names, read_image, section
from wsss.api.results import ClassMaps
from wsss.cams.affinity import propagate as propagate_rows
from wsss.cams.clip_sources import clip_cams
from wsss.clip.text.attributes import attribute_bank, enrich
from wsss.clip.text.embeddings import TextBank
from wsss.config.cams import AffinityConfig, CamsConfig, TseConfig
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
    tags: Sequence[str],
    backgrounds: Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
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
        DataError: a tag is missing, empty, doubled or no class, or a background is a class.
        ValueError: the photo is too large for the encoder's attention: set ``long_side``.
    """
    check_clip(clip)
    _check_tags(tags)
    check_names("classes", () if classes is None else classes)
    listed = _classes(classes or tags, backgrounds, prompts)
    cams = CamsConfig(source="grad_cam", affinity=_affinity(affinity, box_threshold))
    with clip.computing():
        return _class_maps(clip, photo, tags, listed, clip.texts(listed), cams)


@argument_names()
def patch_text_cams(
    clip: Clip,
    photo: Photo,
    tags: Sequence[str],
    backgrounds: Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    prompts: Mapping[str, str] | None = None,
    descriptions: Mapping[str, Sequence[str]] | None = None,
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
        DataError: as `grad_cam`; or a tag is none of the classes, or a class has no description.
        ValueError: the photo is too large for the encoder's attention: set ``long_side``.
    """
    check_clip(clip)
    _check_tags(tags)
    check_names("classes", () if classes is None else classes)
    listed = _classes(classes or tags, backgrounds, prompts)
    by_name: dict[str, Sequence[str]] = {}
    if descriptions is not None:
        for name, lines in descriptions.items():
            check_names(f"descriptions of {name!r}", lines)
        by_spelling = {spelling(name): lines for name, lines in descriptions.items()}
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
        ValueError: the arrays are not of these shapes, or do not fit each other.
    """
    check_maps("maps", maps)
    patches = maps.shape[1] * maps.shape[2]
    square = attention.ndim == 2 and attention.shape[0] == attention.shape[1]
    if not square or len(attention) not in {patches, patches + 1}:
        raise ValueError(
            f"attention {list(attention.shape)} does not fit maps on a grid of "
            f"{maps.shape[1]} x {maps.shape[2]} patches"
        )
    settings = _affinity({"power": power, "sinkhorn_iterations": iterations}, box_threshold)
    rows = torch.from_numpy(maps.astype(np.float32))
    weights = torch.from_numpy(attention.astype(np.float32))[None]
    image_index = torch.zeros(len(rows), dtype=torch.long)
    return propagate_rows(weights, rows, image_index, CamsConfig(affinity=settings)).numpy()


def _affinity(options: bool | Mapping[str, Any], box_threshold: float | None) -> AffinityConfig:
    values = {"enabled": options} if isinstance(options, bool) else options
    affinity = section(AffinityConfig, **{"box_threshold": box_threshold, **values})
    if not affinity.uses_dino:
        return affinity
    raise ValueError("no DINOv2 is loaded here; give wsss.propagate its affinity of patches")


def _check_tags(tags: Sequence[str]) -> None:
    check_names("tags", tags)
    if not len(tags):
        raise DataError("there is no tag; name what is on the photo")


def _classes(
    tags: Sequence[str],
    backgrounds: Sequence[str] | None,
    prompts: Mapping[str, str] | None,
) -> ClassList:
    check_names("backgrounds", () if backgrounds is None else backgrounds)
    return customise(folder_classes(tags), prompts or {}, backgrounds)


def _class_maps(
    clip: Clip,
    photo: Photo,
    tags: Sequence[str],
    classes: ClassList,
    texts: TextBank,
    cams: CamsConfig,
) -> ClassMaps:
    image = read_image(photo)
    indices = spellings(classes)
    if unknown := [tag for tag in tags if spelling(tag) not in indices]:
        raise DataError(f"{unknown[0]!r} is no class{nearest(unknown[0], classes.names)}")
    rows = [indices[spelling(tag)] for tag in tags]
    if len(set(rows)) < len(rows):
        raise DataError(f"tags: {', '.join(tags)}: a class is named twice")
    pixels = clip.pixels(image)
    bank = texts.to(clip.inputs.encoder.device)
    batch, propagated = clip_cams(clip.inputs.encoder, [pixels], [rows], bank, cams)

    def array(tensor: torch.Tensor) -> Float32[np.ndarray, ...]:
        return tensor.float().cpu().numpy()

    return ClassMaps(
        image,
        tuple(tags),
        array(batch.maps),
        None if propagated is None else array(propagated),
        array(batch.probabilities),
        None if batch.attention is None else array(batch.attention[0]),
    )
