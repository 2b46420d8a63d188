"""From class scores to labels: dense CRF, pixel-adaptive refinement, pseudo masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float32

from wsss.api.inputs import (
    Photo,
    check_maps,
    options_of,
    read_image,
    section,
    texts_of,
    whole_numbers,
)
from wsss.api.results import PALETTE, Segmentation
from wsss.config.labels import BackgroundConfig, CrfConfig, MasksConfig
from wsss.data.datasets.classes import MAX_CLASSES
from wsss.labels.crf import bounded
from wsss.labels.crf import dense_crf as crf_posterior
from wsss.labels.pseudo import pseudo_label
from wsss.labels.upsample import upsample

_MOST = 1000
"""Iterations of PAR, and pixels between its neighbours."""


def dense_crf(
    photo: Photo,
    probabilities: np.ndarray,
    *,
    iterations: int = 10,
    gaussian_sxy: float = 1.0,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 67.0,
    bilateral_srgb: float = 3.0,
    bilateral_compat: float = 4.0,
    long_side: int | None = None,
    backend: str = "auto",
) -> Float32[np.ndarray, "labels height width"]:
    """The posterior of a fully connected CRF (Krähenbühl and Koltun 2011, arXiv:1210.5644).

    Args:
        photo: see `read_image`.
        probabilities: float [labels, h, w] in 0 … 1, of any size; they need not sum to one.
        iterations: of mean field.
        gaussian_sxy: standard deviation of the smoothness kernel, pixels.
        gaussian_compat: its weight.
        bilateral_sxy: spatial standard deviation of the appearance kernel, pixels.
        bilateral_srgb: its standard deviation in colour, grey levels.
        bilateral_compat: its weight.
        long_side: a larger photo is scaled to this long side, pixels, and the spatial deviations
            with it; None keeps its size, which takes a minute for a photo of 12 megapixels.
        backend: ``pydensecrf``, ``torch``, or ``auto``: the first where it is installed.

    Returns:
        At the size of the photo; sums to one over the labels.

    Raises:
        ValueError: the probabilities are no such array, or a setting is out of range.
        ImportError: the backend is pydensecrf, which is not installed.
    """
    image = read_image(photo)
    check_maps("probabilities", probabilities)
    values = {
        "iterations": iterations,
        "gaussian_sxy": gaussian_sxy,
        "gaussian_compat": gaussian_compat,
        "bilateral_sxy": bilateral_sxy,
        "bilateral_srgb": bilateral_srgb,
        "bilateral_compat": bilateral_compat,
        "long_side": long_side,
        "backend": backend,
    }
    settings = section(CrfConfig, values)
    small, settings = bounded(image, settings)
    posterior = crf_posterior(upsample(probabilities, small.shape[:2]), small, settings)
    return posterior if small is image else upsample(posterior, image.shape[:2])


def pixel_adaptive_refinement(
    photo: Photo,
    scores: np.ndarray,
    *,
    iterations: int = 20,
    dilations: Iterable[int] = (1, 2, 4, 8, 12, 24),
) -> Float32[np.ndarray, "labels height width"]:
    """Scores averaged again and again over neighbours of similar colour (PAR).

    Ru et al., AFA, CVPR 2022, arXiv:2203.02664; eq. 14 and 15 of docs/methods/weclip.md.

    Args:
        photo: see `read_image`.
        scores: float [labels, h, w] in 0 … 1, of any size, background included.
        iterations: how often the scores are averaged, up to 1000; 0: they are only scaled.
        dilations: distances of the neighbours, 1 … 1000 pixels.

    Returns:
        At the size of the photo. As published, the weights of one average sum to 1.01, so that
        scores may exceed 1; divide them by their sum over the labels before `dense_crf`.

    Raises:
        TypeError: the distances are no list.
        ValueError: the scores are no such array, or a number is out of range.
    """
    import torch

    from wsss.labels.par import pixel_adaptive_refinement as refine

    image = read_image(photo)
    check_maps("scores", scores)
    (iterations,) = whole_numbers("iterations", [iterations], 0, _MOST)
    dilations = whole_numbers("dilations", dilations, 1, _MOST)
    pixels = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    masks = torch.from_numpy(upsample(scores, image.shape[:2]))[None]
    with torch.inference_mode():
        refined = refine(pixels, masks, iterations=iterations, dilations=dilations)
    return refined[0].numpy()


def pseudo_mask(
    photo: Photo,
    scores: np.ndarray,
    tags: Iterable[str] | None = None,
    *,
    background: np.ndarray | None = None,
    background_power: float = 1.0,
    background_constant: float | None = None,
    par: bool = False,
    crf: bool | Mapping[str, float | int | str] = True,
) -> Segmentation:
    """The most likely label of each pixel, and its confidence, from scores of a photo's tags.

    The scores are rounded to float16, as the pipeline stores them, scaled to the photo and put
    behind a background score: eq. 20-23 of docs/methods/clip-es.md.

    Args:
        photo: see `read_image`.
        scores: float [tags, h, w] in 0 … 1, of any size.
        tags: names of the scores; None numbers them.
        background: float [h, w] in 0 … 1, a refiner's score of the background.
        background_power: without ``background``, it is ``(1 - largest score)`` to this power.
        background_constant: … or this constant, if it is given.
        par: refine the scores with `pixel_adaptive_refinement` first.
        crf: refine them with `dense_crf`; a mapping holds arguments of it. CRF and PAR run at a
            ``long_side`` of 1024, unless the mapping says otherwise.

    Returns:
        Label k + 1 is that of tag k, 0 is background.

    Raises:
        TypeError: the tags are no list of names, or ``crf`` is neither a switch nor settings.
        ValueError: scores or tags do not fit, or a setting is unknown or out of range.
    """
    image = read_image(photo)
    check_maps("scores", scores)
    numbers = map(str, range(1, len(scores) + 1))
    names = texts_of("tags", numbers if tags is None else tags)
    if len(names) != len(scores):
        raise ValueError(f"{len(scores)} score maps for {len(names)} tags; expected one each")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"{len(names)} score maps; masks of 8 bits hold at most {MAX_CLASSES}")
    rule = {"rule": "power", "value": background_power}
    if background_constant is not None:
        rule = {"rule": "constant", "value": background_constant}
    settings = section(
        MasksConfig,
        {
            "background": section(BackgroundConfig, rule, {"value": f"background_{rule['rule']}"}),
            "par": par,
            "crf": section(CrfConfig, options_of("crf", crf)),
        },
    )
    behind = None
    if background is not None:
        check_maps("background", background, "height, width")
        if background.shape != scores.shape[1:]:
            raise ValueError(
                f"background: expected the size of the scores, {list(scores.shape[1:])}, not "
                f"{list(background.shape)}; give both on one grid"
            )
        behind = background.astype(np.float16)
    classes = range(len(names))
    labels, confidence = pseudo_label(scores.astype(np.float16), classes, image, settings, behind)
    return Segmentation(image, labels, confidence, ("background", *names), PALETTE)
