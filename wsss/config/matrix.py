"""Which sections may differ between the runs of a sweep, and along the axes of a matrix."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from wsss.config.base import Section

SWEPT = frozenset(
    {"seed", "clip", "cams", "seeds", "refine", "infer", "masks", "retrain", "predict"}
)
"""Sections that may differ between the runs of a sweep: all that comes after the manifest."""


AXES: dict[str, tuple[str, ...]] = {
    "cams": ("clip", "cams"),
    "refine": ("seeds", "refine", "infer", "masks"),
    "retrain": ("retrain", "predict"),
}
"""The axes of a matrix, in the order of the chain, and the sections that may differ along each."""


class MatrixConfig(Section):
    """Any CAM source x any refiner x any segmenter, each combination a run.

    Of each axis entries by name, with what is laid over the configuration. The run of an entry a
    axis lies in ``results/<name>/<cams>/<refine>/<retrain>/``; what those of one CAM source, or of
    one source and refiner, have in common lies above it and is made once.
    """

    cams: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description=(
            "CAM sources by name with what is laid over the sections clip and cams, e.g. {svc: "
            "{cams: {source: patch_text}}}; empty = that of the section cams alone."
        ),
    )
    refine: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Refiners by name: seeds, refine, infer and masks may differ.",
    )
    retrain: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Segmenters by name: retrain and predict may differ."
    )

    @property
    def axes(self) -> list[str]:
        """Those with entries."""
        return [axis for axis in AXES if getattr(self, axis)]
