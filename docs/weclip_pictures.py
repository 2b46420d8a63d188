"""Draws docs/img/weclip.png from a finished run of the demo with WeCLIP.

snakemake --cores all --configfile workflow/presets/demo-weclip.yaml
python docs/weclip_pictures.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import matplotlib
import numpy as np
import torch

from wsss.artifacts.shard import Shard
from wsss.cams.affinity import propagate
from wsss.clip.images import resize_image
from wsss.config.load import load_config
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

ROOT = Path(__file__).parents[1]
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
    config = load_config(ROOT / "config.yaml", ROOT / "workflow/presets/demo-weclip.yaml")
    cams = config.cams
    manifest, classes = load(run / "manifest")
    sample = next(s for s in manifest.split("val") if s.id == image)
    checkpoint = run / "refine/checkpoint.safetensors"
    refiner = cast(WeClip, from_checkpoint(checkpoint, cache=ROOT / "results/cache"))
    inputs, settings = refiner.setup.encoder_input, refiner.options

    photo = inputs.photo(sample)
    pixels = inputs.pixels(sample)[None]
    frozen = encode(inputs.encoder, pixels, attention_blocks=settings.rfm_blocks)
    _, fused, logits = refiner.head(frozen.features, frozen.grid)
    learned = refiner.affinity(fused)
    assert frozen.attention is not None
    distances = block_distances(learned, frozen.attention, "absolute")
    kept = select_near(distances)
    trusted = trusted_affinity(learned, frozen.attention, kept)
    initial = next(
        torch.from_numpy(shard.read(image).arrays["cam"].astype(np.float32))
        for path in sorted((run / "cams/val").glob("*.h5"))
        if image in (shard := Shard(path))
    )
    owner = torch.zeros(len(initial), dtype=torch.long)
    plain = propagate(frozen.attention.mean(1), initial, owner, cams)
    refined = propagate(trusted, initial, owner, cams)
    size = (photo.shape[0], photo.shape[1])
    tags = torch.tensor(sample.tags)
    still = inputs.normalize(resize_image(photo, size))[None]
    assert settings.ignore_band is not None
    band = IgnoreBand(*settings.ignore_band)
    label = online_labels(still, refined, owner, tags, size, ignore_band=band)
    near = patch[0] * frozen.grid[1] + patch[1]

    figure, axes = plt.subplots(2, 5, figsize=(13, 5.4), layout="constrained")
    first = classes.names[sample.tags[0]]
    panels = [
        ("image and one patch", lambda a: paint_photo(a, photo, patch, frozen.grid)),
        (f"$M_{{init}}$ of “{first}”: frozen CLIP", lambda a: paint_map(a, initial[0])),
        (
            "$A_s$: attention of that patch,\nmean of the last blocks",
            lambda a: paint_map(a, frozen.attention[0].mean(0)[near].view(frozen.grid)),
        ),
        (
            "$A_f$: learned affinity of that patch",
            lambda a: paint_map(a, learned[0, near].view(frozen.grid)),
        ),
        (
            "$S^l$ minus its mean: distance\nof each block from $A_f$",
            lambda a: _bars(a, distances[0], kept[0]),
        ),
        (
            "$R$: attention of the kept blocks,\ntimes $A_f$",
            lambda a: paint_map(a, trusted[0, near].view(frozen.grid)),
        ),
        ("$M_f$ before the module starts", lambda a: paint_map(a, plain[0])),
        ("$M_f$ with it", lambda a: paint_map(a, refined[0])),
        (
            "pseudo label after PAR\n(grey: unsure, ignored)",
            lambda a: paint_labels(a, label[0].numpy()),
        ),
        (
            "what the decoder predicts,\nwithout tags",
            lambda a: paint_labels(a, logits[0].argmax(0).numpy().astype(np.uint8)),
        ),
    ]
    for axis, (title, paint) in zip(axes.flat, panels, strict=True):
        paint(axis)
        axis.set_title(title, fontsize=9.5)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90, metadata={"Software": None})


def paint_photo(
    axis: plt.Axes, photo: np.ndarray, patch: tuple[int, int], grid: tuple[int, int]
) -> None:
    """The photo with a frame around one patch."""
    axis.imshow(photo)
    height, width = photo.shape[0] / grid[0], photo.shape[1] / grid[1]
    corner = (patch[1] * width, patch[0] * height)
    axis.add_patch(plt.Rectangle(corner, width, height, fill=False, color="white", linewidth=2.5))
    axis.add_patch(plt.Rectangle(corner, width, height, fill=False, color="black", linewidth=1))
    axis.set_axis_off()


def paint_map(axis: plt.Axes, values: torch.Tensor) -> None:
    """Values on the patch grid, dark to bright."""
    axis.imshow(values.numpy(), cmap="inferno")
    axis.set_axis_off()


def _bars(axis: plt.Axes, distances: torch.Tensor, kept: torch.Tensor) -> None:
    apart = (distances - distances.mean()).tolist()
    count = len(apart)
    colours = ["#4477AA" if keep else "#BBBBBB" for keep in kept.tolist()]
    axis.bar(range(count), apart, color=colours)
    axis.axhline(0, color="#EE6677", linewidth=1.2)
    names = [f"−{count - 1 - number}" for number in range(count - 1)]
    axis.set_xticks(range(count), [*names, "last"])
    axis.set_xlabel(f"block (blue: kept); mean {float(distances.mean()):.0f}", fontsize=8)
    axis.tick_params(labelsize=8)


def paint_labels(axis: plt.Axes, labels: np.ndarray) -> None:
    """Labels in the data set's colours; background white, ignored grey."""
    colours = PALETTE.copy()
    colours[0], colours[IGNORED] = (245, 245, 245), (170, 170, 170)
    axis.imshow(colours[labels])
    axis.set_axis_off()


if __name__ == "__main__":
    main()
