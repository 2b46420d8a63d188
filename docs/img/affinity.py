"""Draw docs/img/affinity.png from a scene of the demo: `python docs/img/affinity.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from panels import ROOT, paint_map, paint_photo, plt, save

import wsss
from wsss.data.datasets.classes import class_list
from wsss.demo.scenes import render_scene

DEMO = class_list("demo")
KINDS = {
    "attention": {"kind": "attention"},
    "class distribution": {"kind": "distribution"},
    "feature cosine": {"kind": "feature"},
    "attention times distribution": {"kind": "joined"},
}


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", type=int, default=14, help="index in val")
    parser.add_argument("--tags", nargs="+", default=["house", "bottle"])
    parser.add_argument("--patch", type=int, nargs=2, default=(7, 11), help="row and column")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/img/affinity.png")
    options = parser.parse_args()
    draw(options.scene, options.tags, tuple(options.patch), options.out)


def draw(scene: int, tags: list[str], patch: tuple[int, int], out: Path) -> None:
    """One held-out scene: each affinity of a patch, and the CAM of the first tag along it."""
    photo, clip = render_scene(seed=0, split="val", index=scene).image, wsss.load_clip("demo")
    figure, axes = plt.subplots(2, 1 + len(KINDS), figsize=(13, 5.4), layout="constrained")
    for column, (title, affinity) in enumerate(KINDS.items(), start=1):
        cams = wsss.grad_cam(
            clip, photo, tags, DEMO.backgrounds, classes=DEMO.names, affinity=affinity
        )
        grid = (cams.maps.shape[1], cams.maps.shape[2])
        patches = grid[0] * grid[1]
        weights = torch.from_numpy(cams.attention[-patches:, -patches:])
        paint_map(axes[0, column], weights[patch[0] * grid[1] + patch[1]].view(grid))
        paint_map(axes[1, column], torch.from_numpy(cams.propagated[0]))
        axes[0, column].set_title(f"{title}\nof that patch", fontsize=9.5)
        axes[1, column].set_title(f"CAM of “{tags[0]}”, spread by it", fontsize=9.5)
    paint_photo(axes[0, 0], photo, patch, grid)
    axes[0, 0].set_title("image and one patch", fontsize=9.5)
    paint_map(axes[1, 0], torch.from_numpy(cams.maps[0]))
    axes[1, 0].set_title(f"CAM of “{tags[0]}”", fontsize=9.5)
    save(figure, out)


if __name__ == "__main__":
    main()
