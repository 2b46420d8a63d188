"""Sections that may differ between the runs of a sweep, and along the axes of a matrix."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from wsss.config.base import Section

SWEPT = frozenset(
    {
        *("seed", "supervision", "tag_noise", "clip", "cams", "seeds"),
        *("dino", "refine", "infer", "masks", "retrain", "predict"),
    }
)
"""Sections that may differ between the runs of a sweep: all that comes after the manifest."""


AXES: dict[str, tuple[str, ...]] = {
    "cams": ("clip", "dino", "cams"),
    "refine": ("seeds", "dino", "refine", "infer", "masks"),
    "retrain": ("retrain", "predict"),
}
"""The axes of a matrix, in the order of the chain, and the sections that may differ along each."""


class MatrixConfig(Section):
    """Any CAM source x any refiner x any segmenter: one run per combination.

    Each axis has entries by name, with the options that they change. A run lies in
    ``results/<name>/<cams>/<refine>/<retrain>/``; what the runs of one CAM source, or of one source
    and refiner, share lies above it and is made once.
    """

    cams: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description=(
            "CAM sources by name: clip, dino and cams may differ, e.g. {svc: {cams: {source: "
            "patch_text}}}. empty = the source of section cams."
        ),
    )
    refine: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Refiners by name: seeds, dino, refine, infer and masks may differ.",
    )
    retrain: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Segmenters by name: retrain and predict may differ."
    )

    @property
    def axes(self) -> list[str]:
        """Axes with entries."""
        return [axis for axis in AXES if getattr(self, axis)]
