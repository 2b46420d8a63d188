"""Draws docs/img/weakclip.png from a finished run of the demo with WeakCLIP.

snakemake --cores all --configfile workflow/presets/demo-weakclip.yaml
python docs/img/weakclip.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
import torch

from wsss.artifacts.shard import Item, Shard
from wsss.data.images.label_png import voc_palette
from wsss.data.manifest_folder import load
from wsss.labels.ignore import IGNORED
from wsss.refine.load import from_checkpoint
from wsss.refine.weakclip.method import WeakClip

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
PALETTE = np.array(voc_palette(), np.uint8)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "results/demo-weakclip")
    parser.add_argument("--image", default="train_0073")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/img/weakclip.png")
    options = parser.parse_args()
    draw(options.run, options.image, options.out)


@torch.no_grad()
def draw(run: Path, image: str, out: Path) -> None:
    """One training image from its CAM to its pseudo mask, in the paper's symbols."""
    checkpoint = run / "refine/checkpoint.safetensors"
    refiner = from_checkpoint(checkpoint, device="cpu", cache=ROOT / "results/cache")
    assert isinstance(refiner, WeakClip)
    network, inputs = refiner.network, refiner.setup.encoder_input
    manifest, classes = load(run / "manifest")
    sample = next(s for s in manifest.split("train") if s.id == image)
    match, logits = network.head(network.encode(inputs.pixels(sample)[None]), network.texts())
    probs = logits[0, [0, *(tag + 1 for tag in sample.tags)]].softmax(0)
    arrays = _item((run / "cams/train").glob("*.h5"), image).arrays
    cams = arrays["cam_affinity"].astype(np.float32)
    seeds = _item((run / "seeds/train").glob("*.h5"), image).arrays["train"]
    mask = _item((run / "masks/train").glob("*.h5"), image).arrays["label"]
    names = [classes.names[tag] for tag in sample.tags]

    panels = [("image", inputs.photo(sample))]
    panels += [(f"CAM of “{name}”", cam) for name, cam in zip(names, cams, strict=True)][:2]
    panels += [("seeds\n(grey: between the two values)", _colours(seeds))]
    panels += [
        (f"$\\lambda'$ of “{name}”", match[0, tag + 1].numpy())
        for name, tag in zip(names, sample.tags, strict=True)
    ][:2]
    panels += [
        (f"$P$ of “{name}”", of_class)
        for name, of_class in zip(names, probs[1:].numpy(), strict=True)
    ][:2]
    panels += [("pseudo mask:\nall scales, CRF", _colours(mask))]
    figure, axes = plt.subplots(2, -(-len(panels) // 2), figsize=(12, 4.4), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, values) in zip(axes.flat, panels, strict=False):
        axis.imshow(values, cmap="inferno")
        axis.set_title(title, fontsize=9.5)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90, metadata={"Software": None})


def _item(shards: Iterable[Path], image: str) -> Item:
    for path in sorted(shards):
        with Shard(path) as shard:
            if image in shard:
                return shard.read(image)
    raise SystemExit(f"{image}: not in the run; finish it first")


def _colours(labels: np.ndarray) -> np.ndarray:
    colours = PALETTE.copy()
    colours[0], colours[IGNORED] = (245, 245, 245), (170, 170, 170)
    return colours[labels]


if __name__ == "__main__":
    main()
