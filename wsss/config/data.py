"""The section on images and their tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share

CocoRule = Literal["crowd_void", "voc_style", "weakclip", "png"]
COCO_RULES: Final[Mapping[CocoRule, str]] = {
    "crowd_void": "smaller instances on top, crowd regions 255",
    "voc_style": "smaller annotations on top, crowd regions as their class",
    "weakclip": "annotations that come first in the file on top, crowd regions as their class",
    "png": "PNGs that were made elsewhere",
}
"""How COCO's annotations become the label maps that scores compare with."""


class DataConfig(Section):
    """Images and their tags. Paths may use ${WSSS_SHARED} (default ../shared) and ~."""

    kind: Literal["demo", "voc", "coco", "folder"] = Field(
        "demo",
        description=(
            "demo: generated; voc: VOC 2012 devkit layout; coco: COCO 2014; folder: photos "
            "and a CSV."
        ),
    )
    root: str = Field(
        "results/demo-data", description="Folder of the data set (demo: where it is generated)."
    )
    demo_images: tuple[PositiveInt, PositiveInt] = Field(
        (240, 80), description="demo only: number of training and held-out images."
    )
    train_list: str = Field(
        "train",
        description=(
            "List of training ids: a name (train, trainaug; coco: train, train-with-objects) or a "
            "text file."
        ),
    )
    val_list: str = Field("val", description="List of held-out ids, or an empty string for none.")
    tags: str = Field(
        "auto",
        description=(
            "Where image-level tags come from: auto (voc: the XML annotations; coco: the "
            "instances JSON; "
            "demo: tags.csv; folder: <root>/tags.csv), xml, json, or the path of a CSV file. "
            "masks (voc, coco): read from the pixel labels by `wsss truth tags`, as in some "
            "papers; only for comparison with them, since this uses pixel labels."
        ),
    )
    classes: list[str] = Field(
        default_factory=list,
        description=("folder only: class names; empty = all tags in alphabetical order."),
    )
    prompts: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "Words that replace a class name in the prompt, e.g. {crane: construction crane}."
        ),
    )
    backgrounds: list[str] | None = Field(
        None,
        description="Background words of the softmax; null = those of the class list.",
    )
    masks: str = Field(
        "",
        description=(
            "Folder of ground-truth PNGs for the scores. folder: empty = none; coco: written by "
            "`wsss truth coco-masks`, empty = drawn during each scoring; with coco_truth png, the "
            "PNGs themselves."
        ),
    )
    coco_truth: CocoRule = Field(
        "crowd_void",
        description=(
            "coco: the rule behind the ground truth of the scores. "
            + "; ".join(f"{name}: {rule}" for name, rule in COCO_RULES.items())
            + " (masks names the folder). voc_style: the VOC-style masks that papers pass on, on "
            "which WeCLIP and ExCEL score; weakclip: what WeakCLIP's converter writes."
        ),
    )
    max_pixels: PositiveInt = Field(
        50_000_000, description="Larger images are quarantined by their header, before decoding."
    )
    quarantine_limit: Share = Field(
        0.02, description="The run stops if a larger share of the images cannot be used."
    )

    @property
    def has_truth(self) -> bool:
        """Whether there is ground truth (a folder of photos may have none)."""
        return self.kind != "folder" or bool(self.masks)
