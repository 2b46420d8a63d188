"""Draws docs/img/weclip.png from a finished run of the demo with WeCLIP.

snakemake --cores all --configfile workflow/presets/demo-weclip.yaml
python docs/img/weclip.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch

from wsss.artifacts.shard import Shard
from wsss.cams.affinity import propagate
from wsss.clip.images import resize_image
from wsss.data.images.label_png import voc_palette
from wsss.data.manifest_folder import load
from wsss.labels.ignore import IGNORED
from wsss.labels.online import IgnoreBand, online_labels
from wsss.refine.blocks.frozen import encode
from wsss.refine.blocks.refinement import block_distances, select_near, trusted_affinity
from wsss.refine.load import from_checkpoint
from wsss.refine.weclip.method import WeClip

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

ROOT = Path(__file__).parents[2]
PALETTE = np.array(voc_palette(), np.uint8)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "results/demo-weclip")
    parser.add_argument("--image", default="val_0054")
    parser.add_argument("--patch", type=int, nargs=2, default=(7, 7), help="row and column")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/img/weclip.png")
    options = parser.parse_args()
    draw(options.run, options.image, tuple(options.patch), options.out)


@torch.no_grad()
def draw(run: Path, image: str, patch: tuple[int, int], out: Path) -> None:
    """One image through the refinement module, step by step, in the paper's symbols."""
    checkpoint = run / "refine/checkpoint.safetensors"
    refiner = from_checkpoint(checkpoint, device="cpu", cache=ROOT / "results/cache")
    assert isinstance(refiner, WeClip)
    options, cams, inputs = refiner.options, refiner.setup.cams, refiner.setup.encoder_input
    manifest, classes = load(run / "manifest")
    sample = next(s for s in manifest.split("val") if s.id == image)
    photo, pixels = inputs.photo(sample), inputs.pixels(sample)[None]
    blocks = options.rfm_blocks_of(inputs.encoder.depth)
    features = encode(inputs.encoder, pixels, attention_blocks=blocks)
    _, fused, logits = refiner.head(features.features, features.grid)
    learned, attention = refiner.affinity(fused), features.attention
    assert attention is not None
    distances = block_distances(learned, attention, "absolute")
    selected = select_near(distances)
    trusted = trusted_affinity(learned, attention, selected)
    initial = next(
        torch.from_numpy(shard.read(image).arrays["cam"].astype(np.float32))
        for path in sorted((run / "cams/val").glob("*.h5"))
        if image in (shard := Shard(path))
    )
    image_index = torch.zeros(len(initial), dtype=torch.long)
    plain = propagate(attention.mean(1), initial, image_index, cams)
    refined = propagate(trusted, initial, image_index, cams)
    size = (photo.shape[0], photo.shape[1])
    tags = torch.tensor(sample.tags)
    full_size = inputs.normalize(resize_image(photo, size))[None]
    assert options.ignore_band is not None
    band = IgnoreBand(*options.ignore_band)
    label = online_labels(full_size, refined, image_index, tags, size, ignore_band=band)
    near = patch[0] * features.grid[1] + patch[1]

    def of_patch(matrix: torch.Tensor) -> torch.Tensor:
        return matrix[near].view(features.grid)

    figure, axes = plt.subplots(2, 5, figsize=(13, 5.4), layout="constrained")
    first = classes.names[sample.tags[0]]
    panels = [
        ("image and one patch", lambda a: paint_photo(a, photo, patch, features.grid)),
        (f"$M_{{init}}$ of “{first}”: frozen CLIP", lambda a: paint_map(a, initial[0])),
        (
            "$A_s$: attention of that patch,\nmean of the last blocks",
            lambda a: paint_map(a, of_patch(attention[0].mean(0))),
        ),
        (
            "$A_f$: learned affinity of that patch",
            lambda a: paint_map(a, of_patch(learned[0])),
        ),
        (
            "$S^l$ minus its mean: distance\nof each block from $A_f$",
            lambda a: _bars(a, distances[0], selected[0]),
        ),
        (
            "$R$: attention of the selected blocks,\ntimes $A_f$",
            lambda a: paint_map(a, of_patch(trusted[0])),
        ),
        ("$M_f$ before the module starts", lambda a: paint_map(a, plain[0])),
        ("$M_f$ with it", lambda a: paint_map(a, refined[0])),
        (
            "pseudo label after PAR\n(grey: ignored)",
            lambda a: paint_labels(a, label[0].numpy()),
        ),
        (
            "the decoder's prediction,\nwithout tags",
            lambda a: paint_labels(a, logits[0].argmax(0).numpy().astype(np.uint8)),
        ),
    ]
    for axis, (title, paint) in zip(axes.flat, panels, strict=True):
        paint(axis)
        axis.set_title(title, fontsize=9.5)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90, metadata={"Software": None})


def paint_photo(
    axis: Axes, photo: np.ndarray, patch: tuple[int, int], grid: tuple[int, int]
) -> None:
    """The photo with a frame around one patch."""
    axis.imshow(photo)
    height, width = photo.shape[0] / grid[0], photo.shape[1] / grid[1]
    corner = (patch[1] * width, patch[0] * height)
    axis.add_patch(Rectangle(corner, width, height, fill=False, color="white", linewidth=2.5))
    axis.add_patch(Rectangle(corner, width, height, fill=False, color="black", linewidth=1))
    axis.set_axis_off()


def paint_map(axis: Axes, values: torch.Tensor) -> None:
    """Values on the patch grid, dark to bright."""
    axis.imshow(values.numpy(), cmap="inferno")
    axis.set_axis_off()


def _bars(axis: Axes, distances: torch.Tensor, selected: torch.Tensor) -> None:
    differences = (distances - distances.mean()).tolist()
    count = len(differences)
    colours = ["#4477AA" if use else "#BBBBBB" for use in selected.tolist()]
    axis.bar(range(count), differences, color=colours)
    axis.axhline(0, color="#EE6677", linewidth=1.2)
    names = [f"−{count - 1 - index}" for index in range(count - 1)]
    axis.set_xticks(range(count), [*names, "last"])
    axis.set_xlabel(f"block (blue: selected); mean {float(distances.mean()):.0f}", fontsize=8)
    axis.tick_params(labelsize=8)


def paint_labels(axis: Axes, labels: np.ndarray) -> None:
    """Labels in the data set's colours; background white, ignored grey."""
    colours = PALETTE.copy()
    colours[0], colours[IGNORED] = (245, 245, 245), (170, 170, 170)
    axis.imshow(colours[labels])
    axis.set_axis_off()


if __name__ == "__main__":
    main()
