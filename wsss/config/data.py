"""The section on images and their tags."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from wsss.config.base import Section, Share


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
    demo_seed: int = Field(
        0, ge=0, description="demo only: seed of the drawings, whatever the seed of the run."
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
            "masks (voc): read from the pixel labels by `wsss truth tags`, as in some papers; only "
            "for comparison with them."
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
            "`wsss truth coco-masks`, empty = drawn during each scoring."
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
