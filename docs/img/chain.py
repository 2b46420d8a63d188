"""Draw docs/img/chain.png, the strip on top of README, from the demo: `python docs/img/chain.py`.

The run is that of `make demo`. Colours are those of the result page.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from wsss.artifacts.shard import Item, Shard
from wsss.data.images.label_png import read_label_png
from wsss.data.images.read import read_image
from wsss.data.manifest_folder import load
from wsss.labels.upsample import upsample
from wsss.score.figures.overlay import paint_heat, paint_labels
from wsss.score.page.palette import picture_palette

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
SIZE = (384, 288)  # of a panel, pixels; three times that of a scene


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "results/demo")
    parser.add_argument(
        "--image", default="val_0055", help="an image of val; the default goes well"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs/img/chain.png")
    options = parser.parse_args()
    draw(options.run, options.image, options.out)


def draw(run: Path, image: str, out: Path) -> None:
    """One held-out scene through every stage, ending in a prediction that needs no tags."""
    manifest, classes = load(run / "manifest")
    sample = next(sample for sample in manifest.split("val") if sample.id == image)
    photo = cv2.resize(read_image(sample.path), SIZE, interpolation=cv2.INTER_CUBIC)
    palette = picture_palette(len(classes.names) + 1)
    truth = read_label_png(sample.path.parents[1] / f"SegmentationClass/{image}.png")

    def heat(folder: str, array: str) -> np.ndarray:
        item = read(run / folder / "val", image)
        maps = upsample(item.arrays[array].astype(np.float32), photo.shape[:2])
        return paint_heat(photo, maps, item.attrs["classes"], palette)

    def labels(array: np.ndarray) -> np.ndarray:
        large = cv2.resize(array, SIZE, interpolation=cv2.INTER_NEAREST)
        return paint_labels(photo, large, palette)

    tags = ", ".join(classes.names[tag] for tag in sample.tags)
    panels = {
        f"image, tags: {tags}": photo,
        "CAM of the frozen CLIP": heat("cams", "cam"),
        "refined by WeCLIP": heat("scores_grid", "score"),
        "pseudo mask (CRF)": labels(read(run / "masks/val", image).arrays["label"]),
        "segmenter, no tags (CRF)": labels(
            read(run / "predictions/val", image).arrays["multi_crf"]
        ),
        "truth": labels(truth),
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(15, 2.15), layout="constrained")
    for axis, (title, picture) in zip(axes, panels.items(), strict=True):
        axis.imshow(picture)
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
    figure.savefig(out, dpi=90, metadata={"Software": None})


def read(folder: Path, image: str) -> Item:
    """An image's item in the shards of a folder."""
    return next(
        shard.read(image) for path in sorted(folder.glob("*.h5")) if image in (shard := Shard(path))
    )


if __name__ == "__main__":
    main()
