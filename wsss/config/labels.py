"""Sections on how class scores become labels."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from wsss.config.base import AUTO, Section, Share, chain_field, overlay, variant_field

CrfLabels = Literal["all", "candidates", "winners"]
"""Labels of a prediction that enter its CRF."""
CrfBackend = Literal["pydensecrf", "torch"]
"""What computes a CRF."""
LEAST_COLOUR_SIGMA = 0.05
"""Of a CRF, grey levels. Below 0.035 the colours alone leave its lattice (`wsss.labels.crf`)."""
MOST_SIGMA, MOST_WEIGHT = 1e6, 1e4


def crf_backend(value: Any = AUTO) -> Any:
    """The backend that ``auto`` stands for on this machine; any other value as it is."""
    if value != AUTO:
        return value
    return "torch" if importlib.util.find_spec("pydensecrf") is None else "pydensecrf"


def crf_backend_field() -> Any:
    """What computes a CRF."""
    return chain_field(
        AUTO,
        description=(
            "pydensecrf: a compiled package (`pip install 'wsss[crf]'`). torch: the same mean "
            "field, with no further package. Posteriors differ by at most 0.02. auto = that of "
            "masks.crf, and there pydensecrf where it is installed, else torch."
        ),
    )


AutoBackend = Annotated[CrfBackend, BeforeValidator(crf_backend)]
"""It is never ``auto`` once it is validated, so keys and provenance name what ran."""


class BackgroundConfig(Section):
    """From class scores to a background score."""

    rule: Literal["power", "constant"] = Field(
        "power", description="power: (1 - max score)^value. constant: the value itself."
    )
    value: float = Field(
        1.0, gt=0.0, description="Exponent of the power rule, or the constant background score."
    )


class CrfConfig(Section):
    """Dense CRF over the classes of the image and the background."""

    enabled: bool = Field(True, description="Refine the scores with the image before the arg max.")
    backend: AutoBackend = crf_backend_field()
    long_side: PositiveInt | None = Field(
        1024,
        description=(
            "A larger photo is scaled to this long side for CRF and PAR, and the spatial standard "
            "deviations with it. The posterior is scaled back. null = its own size, which takes a "
            "minute and gigabytes for a photo of 12 megapixels."
        ),
    )
    iterations: PositiveInt = Field(10, le=1000, description="Mean-field iterations.")
    gaussian_sxy: float = Field(
        1.0,
        ge=0.01,
        le=MOST_SIGMA,
        description="Spatial standard deviation of the smoothness kernel, pixels.",
    )
    gaussian_compat: float = Field(
        3.0, ge=0, le=MOST_WEIGHT, description="Weight of the smoothness kernel."
    )
    bilateral_sxy: float = Field(
        67.0,
        ge=0.01,
        le=MOST_SIGMA,
        description="Spatial standard deviation of the appearance kernel, pixels.",
    )
    bilateral_srgb: float = Field(
        3.0,
        ge=LEAST_COLOUR_SIGMA,
        le=MOST_SIGMA,
        description="Colour standard deviation of the appearance kernel, grey levels.",
    )
    bilateral_compat: float = Field(
        4.0, ge=0, le=MOST_WEIGHT, description="Weight of the appearance kernel."
    )
    image: Literal["raw", "wrapped"] = variant_field(
        published="wrapped",
        corrected="raw",
        description=(
            "Image of the appearance kernel. raw: RGB. wrapped: BGR minus a mean, cast to uint8 "
            "with wrap-around."
        ),
    )
    unary: Literal["float32", "float16"] = variant_field(
        published="float16",
        corrected="float32",
        description="Precision in which the unary term is computed.",
    )


def crf_labels_field() -> Any:
    """Which labels of a prediction, where tags are unknown, enter the CRF."""
    return variant_field(
        published="all",
        corrected="candidates",
        description=(
            "Labels that enter that CRF. all: every label, as in the released tests. candidates: "
            "those with a probability of at least 0.1 somewhere, which takes a fraction of the "
            "time. winners: those that are the most likely somewhere."
        ),
    )


class ProposalsConfig(Section):
    """Mask proposals of SAM from files, for ``masks.refine: sam``."""

    path: str = Field(
        "",
        description=(
            "Folder with one file per image, <id>.json, as SAM's automatic mask generator writes "
            "with RLE: [{segmentation: {size, counts}, …}, …]."
        ),
    )
    threshold: Share = Field(
        0.5,
        description=(
            "A proposal takes its most likely label where the mean posterior of this label over "
            "it is at least this."
        ),
    )


class MasksConfig(Section):
    """Pseudo masks: `label` (arg max, for scores) and `train` (255 where unsure, for training)."""

    refine: Literal["crf", "par", "sam"] | None = Field(
        None,
        description=(
            "What sharpens the masks. crf: the CRF alone. par: pixel-adaptive refinement alone. "
            "sam: mask proposals from files, over what masks.par and masks.crf give. Such rows "
            "have the supervision I+SAM. null = as masks.par and masks.crf.enabled say."
        ),
    )
    proposals: ProposalsConfig = ProposalsConfig()
    background: BackgroundConfig = BackgroundConfig()
    par: bool = Field(
        False,
        description=(
            "Pixel-adaptive refinement of the scores, before the CRF (ExCEL scores its CAMs after "
            "it)."
        ),
    )
    crf: CrfConfig = CrfConfig()
    min_confidence: Share = Field(
        0.95, description="`train` masks are 255 where the largest posterior is below this."
    )
    min_score: Share = Field(
        0.0,
        description=(
            "`train` masks are also 255 where the label has less than this share of the scores "
            "before PAR and CRF. A CRF is nearly certain almost everywhere, so min_confidence "
            "alone leaves out little of what is wrong. 0 = off."
        ),
    )

    def effective(self) -> dict[str, Any]:
        """Without what changes nothing: ``par`` and ``crf`` say the rest."""
        values = super().effective()
        if self.refine != "sam":
            del values["refine"], values["proposals"]
        if not self.min_score:
            del values["min_score"]
        return values


def with_refine(masks: Any) -> Any:
    """The raw values of section ``masks`` with what its ``refine`` means for ``par`` and ``crf``.

    Args:
        masks: keys and values as a user wrote them; explicit ones stay, and `refine_errors` says
            where they contradict.
    """
    if not isinstance(masks, Mapping) or masks.get("refine") not in ("crf", "par"):
        return masks
    is_par = masks["refine"] == "par"
    return overlay({"par": is_par, "crf": {"enabled": not is_par}}, masks)


def refine_errors(masks: MasksConfig) -> list[str]:
    """Contradictions between ``refine`` and the other keys, one sentence each."""
    errors, path = [], masks.proposals.path
    expected = {"crf": (False, True), "par": (True, False)}.get(masks.refine or "")
    if expected and (masks.par, masks.crf.enabled) != expected:
        errors.append(
            f"masks.refine is {masks.refine}, but masks.par is {str(masks.par).lower()} and "
            f"masks.crf.enabled {str(masks.crf.enabled).lower()}: drop these two, or masks.refine"
        )
    if masks.refine == "sam" and not path:
        errors.append("masks.refine is sam, so masks.proposals.path must name a folder of JSONs")
    if masks.refine != "sam" and path:
        errors.append("masks.proposals.path is given, but masks.refine is not sam")
    return errors


class SeedsConfig(Section):
    """Seeds: hard labels made from the CAMs, for methods that learn from such (weakclip)."""

    rule: Literal["power", "constant"] = Field(
        "constant",
        description="Background score: power: (1 - max CAM)^value. constant: the value itself.",
    )
    values: list[PositiveFloat] = Field(
        [0.4, 0.6],
        min_length=1,
        max_length=2,
        description=(
            "Values of the rule. With two, a pixel that is background under one and foreground "
            "under the other is 255 (ignored)."
        ),
    )
    crf: CrfConfig = CrfConfig(enabled=False)
