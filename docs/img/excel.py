"""Draw docs/img/excel.png from a finished run: `python docs/img/excel.py`.

The run is `demo-excel` (snakemake --cores all --configfile workflow/presets/demo-excel.yaml).
"""

from __future__ import annotations

from pathlib import Path

import torch
from panels import ROOT, draw, load_scene, paint_labels, paint_map, paint_photo, parse_options

from wsss.cams.patch_text import PatchText
from wsss.clip.self_attention import SelfAttention
from wsss.clip.text.attributes import enriched_bank
from wsss.refine.excel.method import Excel
from wsss.refine.excel.relation import relation, shift


@torch.no_grad()
def draw_calibration(run: Path, image: str, patch: tuple[int, int], out: Path) -> None:
    """One held-out image: attention and CAM of CLIP, calibrated, and calibrated by learning."""
    scene = load_scene(run, image, "val", Excel)
    refiner, sample, photo, pixels = scene.refiner, scene.sample, scene.photo, scene.pixels
    setup, inputs, encoder = refiner.setup, refiner.setup.encoder_input, refiner.encoder
    features = refiner.encode(pixels, dynamic=True)
    grid = features.grid
    clean, _, logits = refiner.head(features.features, grid)
    related = relation(clean, refiner.options)
    near = patch[0] * grid[1] + patch[1]
    rows = (torch.zeros(len(sample.tags), dtype=torch.long), torch.tensor(sample.tags))
    static = refiner.patch_text.maps(refiner.tokens(features), grid, *rows)
    dynamic = refiner.patch_text.maps(refiner.tokens(features, related), grid, *rows)
    refined = refiner.spread(features.attention, dynamic, rows[0], related)
    settings = setup.cams.patch_text.model_copy(update={"relation": "none"})
    cache = ROOT / "results/cache"
    bank = enriched_bank(inputs.clip, setup.classes, setup.template, settings.tse, cache)
    plain = PatchText(encoder, bank, settings)
    encoding = encoder.run(pixels, attention_of=[encoder.depth - 1])
    plain_map = plain.maps(plain.features(encoding.tokens), grid, *rows)
    block = encoder.blocks[-1]
    before = encoder.run(pixels, until=encoder.depth - 1).tokens
    calibrated = SelfAttention()(block.split_heads(block.norm1(before)))[1]

    def of_patch(matrix: torch.Tensor) -> torch.Tensor:
        return matrix[near].view(grid)

    attention = encoding.attention[encoder.depth - 1][0, 1:, 1:]
    panels = [
        ("image and one patch", lambda a: paint_photo(a, photo, patch, grid)),
        (
            "CLIP's attention of that patch,\nlast block",
            lambda a: paint_map(a, of_patch(attention)),
        ),
        (
            "SVC: $qq+kk+vv$ of that patch,\nlast block",
            lambda a: paint_map(a, of_patch(calibrated[0, 1:, 1:])),
        ),
        (
            "LVC: learned shift $E$\nof that patch's attention",
            lambda a: paint_map(a, of_patch(shift(related)[0])),
        ),
        (
            "learned affinity $\\sigma(R)$\nof that patch",
            lambda a: paint_map(a, of_patch(related[0].sigmoid())),
        ),
        (f"CAM of “{scene.tags[0]}”:\nCLIP's own features", lambda a: paint_map(a, plain_map[0])),
        ("static CAM (SVC)", lambda a: paint_map(a, static[0])),
        ("dynamic CAM (SVC + LVC)", lambda a: paint_map(a, dynamic[0])),
        ("dynamic CAM, propagated\nby attention and affinity", lambda a: paint_map(a, refined[0])),
        (
            "the decoder's prediction,\nwithout tags",
            lambda a: paint_labels(a, logits[0].argmax(0).byte().numpy()),
        ),
    ]
    draw(panels, (13, 5.4), out)


if __name__ == "__main__":
    options = parse_options(__doc__, "excel", "val_0054")
    draw_calibration(options.run, options.image, tuple(options.patch), options.out)
