"""Draws docs/img/weclip-plus.png from a finished run of the demo with WeCLIP+.

Its DINOv2 has random weights.

snakemake --cores all --configfile workflow/presets/demo-weclip-plus.yaml
python docs/img/weclip_plus.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from weclip import ROOT, paint_labels, paint_map, paint_photo

from wsss.artifacts.shard import Shard
from wsss.clip.images import resize_image
from wsss.data.manifest_folder import load
from wsss.labels.online import IgnoreBand, online_labels
from wsss.refine.blocks.refinement import block_distances, select_near, trusted_affinity
from wsss.refine.load import from_checkpoint
from wsss.refine.weclip_plus.method import WeClipPlus

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "results/demo-weclip-plus")
    parser.add_argument("--image", default="val_0054")
    parser.add_argument("--patch", type=int, nargs=2, default=(7, 7), help="row and column")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/img/weclip-plus.png")
    options = parser.parse_args()
    draw(options.run, options.image, tuple(options.patch), options.out)


@torch.no_grad()
def draw(run: Path, image: str, patch: tuple[int, int], out: Path) -> None:
    """One image through both encoders and the gated refinement, in the symbols of the page."""
    checkpoint = run / "refine/checkpoint.safetensors"
    refiner = from_checkpoint(checkpoint, device="cpu", cache=ROOT / "results/cache")
    assert isinstance(refiner, WeClipPlus)
    options, inputs = refiner.options, refiner.setup.encoder_input
    manifest, classes = load(run / "manifest")
    sample = next(s for s in manifest.split("val") if s.id == image)
    photo, pixels = inputs.photo(sample), inputs.pixels(sample)[None]
    blocks = options.rfm_blocks_of(refiner.encoder.depth)
    features = refiner.encode(pixels, attention_blocks=blocks)
    decoded = refiner.decode(features)
    learned, attention = refiner.affinity(refiner.fused(decoded)), features.clip.attention
    assert attention is not None
    selected = select_near(block_distances(learned, attention, options.block_distance))
    trusted = trusted_affinity(learned, attention, selected)
    initial = next(
        torch.from_numpy(shard.read(image).arrays["cam"].astype(np.float32))
        for path in sorted((run / "cams/val").glob("*.h5"))
        if image in (shard := Shard(path))
    )
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

    first = classes.names[sample.tags[0]]
    panels = [
        ("image and one patch", lambda a: paint_photo(a, photo, patch, features.clip.grid)),
        (f"$M_k$ of “{first}”: frozen CLIP", lambda a: paint_map(a, initial[0])),
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
    figure, axes = plt.subplots(2, 6, figsize=(14, 5.2), layout="constrained")
    for axis, (title, paint) in zip(axes.flat, panels, strict=True):
        paint(axis)
        axis.set_title(title, fontsize=9.5)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
