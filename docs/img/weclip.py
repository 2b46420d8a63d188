"""Draws docs/img/weclip.png from a finished run of the demo with WeCLIP.

snakemake --cores all --configfile workflow/presets/demo-weclip.yaml
python docs/img/weclip.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from panels import draw, load_scene, paint_labels, paint_map, paint_photo, parse_options

from wsss.cams.affinity import propagate
from wsss.clip.images import resize_image
from wsss.labels.online import IgnoreBand, online_labels
from wsss.refine.blocks.frozen import encode
from wsss.refine.blocks.refinement import block_distances, select_near, trusted_affinity
from wsss.refine.weclip.method import WeClip


@torch.no_grad()
def draw_refinement(run: Path, image: str, patch: tuple[int, int], out: Path) -> None:
    """One image through the refinement module, step by step, in the paper's symbols."""
    scene = load_scene(run, image, "val", WeClip)
    refiner, sample, photo, pixels = scene.refiner, scene.sample, scene.photo, scene.pixels
    options, cams, inputs = refiner.options, refiner.setup.cams, refiner.setup.encoder_input
    blocks = options.rfm_blocks_of(inputs.encoder.depth)
    features = encode(inputs.encoder, pixels, attention_blocks=blocks)
    _, fused, logits = refiner.head(features.features, features.grid)
    learned, attention = refiner.affinity(fused), features.attention
    assert attention is not None
    distances = block_distances(learned, attention, "absolute")
    selected = select_near(distances)
    trusted = trusted_affinity(learned, attention, selected)
    initial = torch.from_numpy(scene.item("cams").arrays["cam"].astype(np.float32))
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

    panels = [
        ("image and one patch", lambda a: paint_photo(a, photo, patch, features.grid)),
        (f"$M_{{init}}$ of “{scene.tags[0]}”: frozen CLIP", lambda a: paint_map(a, initial[0])),
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
    draw(panels, (13, 5.4), out)


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


if __name__ == "__main__":
    options = parse_options(__doc__, "weclip", "val_0054")
    draw_refinement(options.run, options.image, tuple(options.patch), options.out)
