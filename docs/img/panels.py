"""What the pictures of the methods share: options, one image of a run, and how panels look."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import matplotlib
import numpy as np
import torch

from wsss.artifacts.shard import Item, Shard
from wsss.data.datasets.classes import ClassList
from wsss.data.images.label_png import voc_palette
from wsss.data.manifest import Sample
from wsss.data.manifest_folder import load
from wsss.labels.ignore import IGNORED
from wsss.refine.base import Refiner
from wsss.refine.load import from_checkpoint

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

ROOT = Path(__file__).parents[2]
PALETTE = np.array(voc_palette(), np.uint8)
Method = TypeVar("Method", bound=Refiner)
Panel = tuple[str, Callable[[Axes], None]]
"""A title, and what paints below it."""


def parse_options(
    description: str | None, name: str, image: str, *, patch: bool = True
) -> argparse.Namespace:
    """The options of a picture of a run of the preset ``demo-<name>``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--run", type=Path, default=ROOT / f"results/demo-{name}")
    parser.add_argument("--image", default=image)
    if patch:
        parser.add_argument("--patch", type=int, nargs=2, default=(7, 7), help="row and column")
    parser.add_argument("--out", type=Path, default=ROOT / f"docs/img/{name}.png")
    return parser.parse_args()


@dataclass(frozen=True)
class Scene(Generic[Method]):
    """One image of a finished run, and the refiner of that run."""

    run: Path
    split: str
    sample: Sample
    classes: ClassList
    refiner: Method

    @property
    def photo(self) -> np.ndarray:
        """[H, W, 3], uint8."""
        return self.refiner.setup.encoder_input.photo(self.sample)

    @property
    def pixels(self) -> torch.Tensor:
        """[1, 3, h, w], as the encoder sees the photo."""
        return self.refiner.setup.encoder_input.pixels(self.sample)[None]

    @property
    def tags(self) -> list[str]:
        """Names of the classes in the image."""
        return [self.classes.names[tag] for tag in self.sample.tags]

    def item(self, product: str) -> Item:
        """What the run's shards of a product, e.g. ``cams``, hold of the image."""
        for path in sorted((self.run / product / self.split).glob("*.h5")):
            with Shard(path) as shard:
                if self.sample.id in shard:
                    return shard.read(self.sample.id)
        raise SystemExit(f"{self.sample.id}: not in {self.run}/{product}; finish the run first")


def load_scene(run: Path, image: str, split: str, method: type[Method]) -> Scene[Method]:
    """An image of a finished run whose refiner is of ``method``."""
    checkpoint = run / "refine/checkpoint.safetensors"
    refiner = from_checkpoint(checkpoint, device="cpu", cache=ROOT / "results/cache")
    assert isinstance(refiner, method)
    manifest, classes = load(run / "manifest")
    sample = next(sample for sample in manifest.split(split) if sample.id == image)
    return Scene(run, split, sample, classes, refiner)


def draw(panels: Sequence[Panel], size: tuple[float, float], out: Path) -> None:
    """Write panels in two rows as a PNG of ``size`` inches."""
    figure, axes = plt.subplots(2, -(-len(panels) // 2), figsize=size, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, paint) in zip(axes.flat, panels, strict=False):
        paint(axis)
        axis.set_title(title, fontsize=9.5)
    save(figure, out)


def save(figure: plt.Figure, out: Path) -> None:
    """Write a figure as a PNG that says nothing of the program."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90, metadata={"Software": None})


def paint_photo(
    axis: Axes,
    photo: np.ndarray,
    patch: tuple[int, int] | None = None,
    grid: tuple[int, int] = (1, 1),
) -> None:
    """The photo, with a frame around one patch."""
    axis.imshow(photo)
    axis.set_axis_off()
    if patch is None:
        return
    height, width = photo.shape[0] / grid[0], photo.shape[1] / grid[1]
    corner = (patch[1] * width, patch[0] * height)
    for color, linewidth in (("white", 2.5), ("black", 1)):
        frame = Rectangle(corner, width, height, fill=False, color=color, linewidth=linewidth)
        axis.add_patch(frame)


def paint_map(axis: Axes, values: torch.Tensor) -> None:
    """Values on the patch grid, dark to bright."""
    axis.imshow(values.numpy(), cmap="inferno")
    axis.set_axis_off()


def paint_labels(axis: Axes, labels: np.ndarray) -> None:
    """Labels in the data set's colours; background white, ignored grey."""
    colours = PALETTE.copy()
    colours[0], colours[IGNORED] = (245, 245, 245), (170, 170, 170)
    axis.imshow(colours[labels])
    axis.set_axis_off()
