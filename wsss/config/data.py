"""The sections on images and their tags, and on wrong tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, PositiveInt

from wsss.config.base import AUTO, Section, Share, Split
from wsss.config.paths import expand_path

CocoRule = Literal["crowd_void", "voc_style", "weakclip", "png"]
COCO_RULES: Final[Mapping[CocoRule, str]] = {
    "crowd_void": "smaller instances on top, crowd regions 255",
    "voc_style": "smaller annotations on top, crowd regions as their class",
    "weakclip": "annotations that come first in the file on top, crowd regions as their class",
    "png": "PNGs that were made elsewhere",
}
"""How COCO's annotations become the label maps that scores compare with."""

_KNOWN: Final[Mapping[tuple[str, str], int]] = {
    ("voc", "train"): 1464,
    ("voc", "trainaug"): 10_582,
    ("coco", "train"): 82_783,
    ("coco", "train-with-objects"): 82_081,
}
"""Images by kind of data and list, for lists that are not there yet, or have no file."""


SPLIT_COLUMNS: Final = ("split", "subset", "set")
"""Titles of the column of a table of tags that says the split, in any case."""
_MOST_HEADER = 2**16  # bytes


class DataConfig(Section):
    """Images and their tags. Paths may use ${WSSS_SHARED} (default ../shared) and ~."""

    kind: Literal["demo", "voc", "coco", "folder"] = Field(
        "demo",
        description=(
            "demo: generated. voc: VOC 2012 devkit layout. coco: COCO 2014. folder: photos "
            "and a CSV."
        ),
    )
    root: str = Field("photos", description="Folder of the data set (demo: where it is generated).")
    demo_images: tuple[PositiveInt, PositiveInt] = Field(
        (240, 80), description="demo only: number of training and held-out images."
    )
    demo_seed: int = Field(
        0, ge=0, description="demo only: seed of the drawings, whatever the seed of the run."
    )
    train_list: str = Field(
        "train",
        description=(
            "List of training ids: a text file or a name. Names: train, trainaug; for coco train, "
            "train-with-objects."
        ),
    )
    val_list: str = Field(
        "val",
        description=(
            "List of held-out ids, or an empty string for none. A segmenter then labels the "
            "training images."
        ),
    )
    tags: str = Field(
        "auto",
        description=(
            "Where image-level tags come from: auto, xml, json, or the path of a CSV file. auto: "
            "the XML annotations (voc), the instances JSON (coco), or <root>/tags.csv (demo, "
            "folder). masks (voc, coco): read from the pixel labels by `wsss truth tags`, as in "
            "some papers. This uses pixel labels, so it serves only to compare with them."
        ),
    )
    classes: list[str] = Field(
        default_factory=list,
        description="folder only: class names. empty = all tags in alphabetical order.",
    )
    prompts: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "Words that replace a class name in the prompt, e.g. {crane: construction crane}."
        ),
    )
    backgrounds: list[str] | None = Field(
        None,
        description="Background words of the softmax. null = those of the class list.",
    )
    masks: str = Field(
        "",
        description=(
            "Folder of ground-truth PNGs for the scores. folder: empty = none. coco: what `wsss "
            "truth coco-masks` wrote, or with coco_truth png the PNGs themselves. empty = the "
            "masks are drawn during each scoring."
        ),
    )
    coco_truth: CocoRule = Field(
        "crowd_void",
        description=(
            "coco: the rule behind the ground truth of the scores. "
            + ". ".join(f"{name}: {rule}" for name, rule in COCO_RULES.items())
            + " (masks names the folder). voc_style: the VOC-style masks that papers pass on, on "
            "which WeCLIP and ExCEL score. weakclip: what WeakCLIP's converter writes."
        ),
    )
    max_pixels: PositiveInt = Field(
        50_000_000, description="Larger images are quarantined by their header, before decoding."
    )
    quarantine_limit: Share = Field(
        0.02,
        description=(
            "The run stops if a larger share of the images cannot be used. Up to five unusable "
            "images never stop it."
        ),
    )

    @property
    def has_truth(self) -> bool:
        """Whether there is ground truth (a folder of photos may have none)."""
        return self.kind != "folder" or bool(self.masks)


class TagNoiseConfig(Section):
    """Tags that are missing, wrong or predicted, on purpose: what does a chain lose by them?

    As shipped the tags stay as they are given.
    """

    source: Literal["given", "clip"] = Field(
        "given",
        description=(
            "Tags to start from. given: those of the data set. clip: the classes that CLIP sees in "
            "the photo."
        ),
    )
    threshold: Share = Field(
        0.1,
        description=(
            "clip: a class is a tag from this probability on, among all classes and background "
            "words. The most probable class always is one."
        ),
    )
    dropped: Share = Field(0.0, description="Probability with which each tag is removed.")
    untagged: Literal["keep_one", "leave_out"] = Field(
        "keep_one",
        description=(
            "A training image that would lose all its tags. keep_one: keeps one of them, so that "
            "all shares are scored on the same images. leave_out: is left out."
        ),
    )
    added: Share = Field(
        0.0, description="Probability with which an image gets one class that it does not show."
    )
    splits: list[Split] = Field(
        ["train"],
        description=(
            "Splits whose tags change. Without val, scores of val show what the training lost."
        ),
    )
    seed: int = Field(0, ge=0, description="Seed of what is removed and added.")

    @property
    def enabled(self) -> bool:
        """Whether any tag may change."""
        draws = self.dropped > 0 or self.added > 0
        return bool(self.splits) and (draws or self.source == "clip")

    def effective(self) -> dict[str, Any]:
        """Without what plays no part; empty where the tags stay as they are given."""
        if not self.enabled:
            return {}
        unused = {
            "threshold": self.source == "given",
            "untagged": self.dropped == 0,
            "seed": self.dropped == 0 and self.added == 0,
        }
        return self.model_dump(mode="json", exclude={name for name, is_ in unused.items() if is_})


def count_images(data: Mapping[str, str]) -> int:
    """Images of the training split: the lines of its list, else what is known of it.

    For a folder these are the rows of its table, those of the held-out split included.

    Args:
        data: ``kind``, ``root``, ``train_list`` and ``tags`` of that section.

    Returns:
        0 where nothing is known, as of a file that is not there.
    """
    kind, name, folder = data["kind"], data["train_list"], expand_path(data["root"])
    if kind == "folder":
        is_auto = data["tags"] == AUTO
        table = folder / "tags.csv" if is_auto else expand_path(data["tags"])
        return max(0, _lines(table, folder / table) - 1)
    path = expand_path(name)
    listed = _lines(folder / "ImageSets" / "Segmentation" / f"{name}.txt", path, folder / path)
    return listed or _KNOWN.get((kind, name), 0)


def holds_nothing_out(data: DataConfig) -> str:
    """Why a folder of photos has no held-out images although ``val_list`` asks for them.

    Only the first line of the table is read, and only if it is here.

    Returns:
        The reason; empty where images are held out, as far as is known here, or need not be.
    """
    lists = [name for name in (data.train_list, data.val_list) if name.endswith(".txt")]
    if data.kind != "folder" or not data.val_list or data.val_list in lists:
        return ""
    if lists:
        return f"the list {lists[0]} alone says the splits"
    folder = expand_path(data.root)
    table = folder / "tags.csv" if data.tags == AUTO else expand_path(data.tags)
    path = table if table.is_file() else folder / table
    titles = _titles(path)
    if not titles or not titles.isdisjoint(SPLIT_COLUMNS):
        return ""
    return f"{path} has no column split (train, {data.val_list})"


def _titles(table: Path) -> set[str]:
    """Titles of the columns of a table of tags; none if it is not here, or hard to read."""
    try:
        if not table.is_file():
            return set()
        with table.open("rb") as stream:
            start = stream.read(_MOST_HEADER)
    except (OSError, ValueError):  # the stage that needs it says what is wrong with it
        return set()
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    lines = start.decode(encoding, errors="replace").splitlines()
    header = next((line for line in lines if line.strip()), "")
    titles = {title.strip(' "').casefold() for title in re.split("[,;\t\uff0c\uff1b]", header)}
    return titles - {""}


def _lines(*paths: Path) -> int:
    """Lines that are not empty, of the first of the files that is there; 0 without any."""
    for path in paths:
        try:
            if path.is_file():
                with path.open("rb") as stream:
                    return sum(1 for line in stream if line.strip())
        except (OSError, ValueError):  # the stage that needs the file says what is wrong with it
            continue
    return 0
