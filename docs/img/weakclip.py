"""Draws docs/img/weakclip.png from a finished run of the demo with WeakCLIP.

snakemake --cores all --configfile workflow/presets/demo-weakclip.yaml
python docs/img/weakclip.py
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from panels import Panel, draw, load_scene, paint_labels, paint_map, paint_photo, parse_options

from wsss.refine.weakclip.method import WeakClip


@torch.no_grad()
def draw_match(run: Path, image: str, out: Path) -> None:
    """One training image from its CAM to its pseudo mask, in the paper's symbols."""
    scene = load_scene(run, image, "train", WeakClip)
    network, tags = scene.refiner.network, scene.sample.tags
    match, logits = network.head(network.encode(scene.pixels), network.texts())
    probs = logits[0, [0, *(tag + 1 for tag in tags)]].softmax(0)
    cams = torch.from_numpy(scene.item("cams").arrays["cam_affinity"]).float()

    def maps(title: str, values: torch.Tensor) -> list[Panel]:
        """A panel for each of the first two tags."""
        return [
            (title.format(name), partial(paint_map, values=of_tag))
            for name, of_tag in zip(scene.tags[:2], values, strict=False)
        ]

    seeds, mask = scene.item("seeds").arrays["train"], scene.item("masks").arrays["label"]
    panels: list[Panel] = [
        ("image", partial(paint_photo, photo=scene.photo)),
        *maps("CAM of “{}”", cams),
        ("seeds\n(grey: between the two values)", partial(paint_labels, labels=seeds)),
        *maps("$\\lambda'$ of “{}”", match[0, [tag + 1 for tag in tags]]),
        *maps("$P$ of “{}”", probs[1:]),
        ("pseudo mask:\nall scales, CRF", partial(paint_labels, labels=mask)),
    ]
    draw(panels, (12, 4.4), out)


if __name__ == "__main__":
    options = parse_options(__doc__, "weakclip", "train_0073", patch=False)
    draw_match(options.run, options.image, options.out)
