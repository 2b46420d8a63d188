"""Draws docs/img/weclip-plus.png from a finished run of the demo with WeCLIP+.

Its DINOv2 has random weights.

snakemake --cores all --configfile workflow/presets/demo-weclip-plus.yaml
python docs/img/weclip_plus.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from panels import draw, load_scene, paint_labels, paint_map, paint_photo, parse_options

from wsss.clip.images import resize_image
from wsss.labels.online import IgnoreBand, online_labels
from wsss.refine.blocks.refinement import block_distances, select_near, trusted_affinity
from wsss.refine.weclip_plus.method import WeClipPlus


@torch.no_grad()
def draw_refinement(run: Path, image: str, patch: tuple[int, int], out: Path) -> None:
    """One image through both encoders and the gated refinement, in the symbols of the page."""
    scene = load_scene(run, image, "val", WeClipPlus)
    refiner, sample, photo, pixels = scene.refiner, scene.sample, scene.photo, scene.pixels
    options, inputs = refiner.options, refiner.setup.encoder_input
    blocks = options.rfm_blocks_of(refiner.encoder.depth)
    features = refiner.encode(pixels, attention_blocks=blocks)
    decoded = refiner.decode(features)
    learned, attention = refiner.affinity(refiner.fused(decoded)), features.clip.attention
    assert attention is not None
    selected = select_near(block_distances(learned, attention, options.block_distance))
    trusted = trusted_affinity(learned, attention, selected)
    initial = torch.from_numpy(scene.item("cams").arrays["cam"].astype(np.float32))
    image_index, tags = torch.zeros(len(initial), dtype=torch.long), torch.tensor(sample.tags)
    sources = refiner.sources(decoded.logits, image_index, tags)
    assert sources is not None
    plain, gated = (
        refiner.refined(features.clip, initial, image_index, learned, gate)
        for gate in (None, sources)
    )
    size = (photo.shape[0], photo.shape[1])
    full_size = inputs.normalize(resize_image(photo, size))[None]
    assert options.ignore_band is not None
    band = IgnoreBand(*options.ignore_band)
    label = online_labels(full_size, gated, image_index, tags, size, ignore_band=band)
    near = patch[0] * features.clip.grid[1] + patch[1]

    def of_patch(matrix: torch.Tensor) -> torch.Tensor:
        return matrix[0, near].view(features.clip.grid)

    def predicted(logits: torch.Tensor) -> np.ndarray:
        return logits[0].argmax(0).numpy().astype(np.uint8)

    panels = [
        ("image and one patch", lambda a: paint_photo(a, photo, patch, features.clip.grid)),
        (f"$M_k$ of “{scene.tags[0]}”: frozen CLIP", lambda a: paint_map(a, initial[0])),
        ("$P_k$: the network's own belief", lambda a: paint_map(a, sources[0])),
        ("$m_k = M_k \\odot P_k$: the sources", lambda a: paint_map(a, initial[0] * sources[0])),
        ("$A_f$: learned affinity\nof that patch", lambda a: paint_map(a, of_patch(learned))),
        (
            "$R$: attention of the selected\nblocks, times $A_f$",
            lambda a: paint_map(a, of_patch(trusted)),
        ),
        ("refined without the gate", lambda a: paint_map(a, plain[0])),
        ("$c_k$: refined with it", lambda a: paint_map(a, gated[0])),
        (
            "pseudo label after PAR\n(grey: ignored)",
            lambda a: paint_labels(a, label[0].numpy()),
        ),
        (
            "$z_c$: CLIP's head,\nwithout tags",
            lambda a: paint_labels(a, predicted(decoded.clip_logits)),
        ),
        (
            "$z_d$: the head of DINOv2\n(random here)",
            lambda a: paint_labels(a, predicted(decoded.dino_logits)),
        ),
        ("$z$: the prediction", lambda a: paint_labels(a, predicted(decoded.logits))),
    ]
    draw(panels, (14, 5.2), out)


if __name__ == "__main__":
    options = parse_options(__doc__, "weclip-plus", "val_0054")
    draw_refinement(options.run, options.image, tuple(options.patch), options.out)
