"""CAMs without training, one change at a time: `python -m benchmarks.training_free demo --out …`.

Scores Grad-CAM and patch-text CAMs of the training images: several scales, each kind of attention,
each form of TSE, each score. Prints the mIoU (in brackets that of the report classes) of the CAM,
after the affinity, and with `--par` of labels after PAR without and with the affinity, each at the
constant background score that is best for it on the same truth (rows are compared at their best,
since one threshold would favour some; PAR takes that of its CAM). Nothing is random; there are no
seeds. Finished rows are not repeated. `--attributes` prints instead which attributes TSE selects.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ablation import ROOT, SETS
from wsss.artifacts.stage import STAGES
from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.score.product import ProductName

CAM, AFFINITY, PAR, BOTH = COLUMNS = ("CAM", "+ affinity", "+ PAR", "+ affinity + PAR")


def _patch(tse: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {"source": "patch_text", "patch_text": changes | ({"tse": tse} if tse else {})}


def _topk(**changes: Any) -> dict[str, Any]:
    return _patch({"form": "topk"} | changes)


_VIEWS = {"scales": [0.5, 1.0, 1.5], "flip": True}
_AS_PUBLISHED = {"prefix": "class", "centering": False, "top_share": 0.9, "temperature": 1.0}
ROWS: dict[str, dict[str, Any]] = {
    "Grad-CAM": {"source": "grad_cam"},
    "Grad-CAM, mirrored": {"source": "grad_cam", "flip": True},
    "Grad-CAM, three scales, mirrored": {"source": "grad_cam"} | _VIEWS,
    "CLIP's own features": _patch(relation="none"),
    "identity, last block (MaskCLIP)": _patch(relation="identity", heads="each", blocks=1),
    "identity": _patch(relation="identity", heads="each"),
    "vv, each head (CLIP Surgery)": _patch(relation="vv", heads="each"),
    "vv, heads summed": _patch(relation="vv"),
    "qq + kk, each head (SCLIP)": _patch(relation="qq_kk", heads="each"),
    "qq + kk, heads summed": _patch(relation="qq_kk"),
    "SVC: qq + kk + vv, heads summed": _patch(),
    "SVC, mirrored": _patch() | {"flip": True},
    "SVC, three scales, mirrored": _patch() | _VIEWS,
    "SVC, heads averaged": _patch(heads="mean"),
    "SVC, each head": _patch(heads="each"),
    "SVC, last block": _patch(blocks=1),
    "SVC, last two thirds": _patch(blocks=-2),
    "SVC, cosine": _patch(score="cosine"),
    "SVC, extremes of all tokens": _patch(min_max_over="tokens"),
    "SVC, attention mixed": _patch(attention="mixed"),
    "SVC + TSE as published": _topk(**_AS_PUBLISHED),
    "SVC + mean of all attributes": _patch({"form": "mean", "prefix": "class", "centering": False}),
    "SVC + TSE": _topk(),
    "SVC + TSE, prefixed": _topk(prefix="class"),
    "SVC + TSE, not centred": _topk(centering=False),
    "SVC + TSE, temperature 1": _topk(temperature=1.0),
    "SVC + TSE, temperature 0.01": _topk(temperature=0.01),
    "SVC + TSE, all attributes": _topk(top_share=1.0),
    "SVC + TSE, half the weight": _topk(weight=0.5),
}
"""By name; changes to the section ``cams`` of the ExCEL preset."""


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--par", action="store_true", help="also with PAR, which takes long")
    parser.add_argument("--attributes", action="store_true", help="statistics of TSE instead")
    options = parser.parse_args()
    if options.attributes:
        attributes(options.set, options.out)
        return
    for row in options.rows:
        file = options.out / f"{_slug(row)}.json"
        if not file.exists() or (
            options.par and PAR not in json.loads(file.read_text(encoding="utf-8"))
        ):
            measure(options.set, row, options.out, file, par=options.par)
    lines = [f"| CAM of the training images | {' | '.join(COLUMNS)} |"]
    lines.append("|---|" + "---:|" * len(COLUMNS))
    for row in options.rows:
        scores = json.loads((options.out / f"{_slug(row)}.json").read_text(encoding="utf-8"))
        cells = (_cell(scores.get(column)) for column in COLUMNS)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    print("\n".join(lines))


def attributes(data: str, out: Path) -> None:
    """How attributes are shared between classes, how they are weighted, and the effect."""
    import torch

    from wsss.clip.input import EncoderInput
    from wsss.clip.text.attributes import attribute_bank, attribute_weights, described, enrich
    from wsss.clip.text.embeddings import text_bank
    from wsss.data.datasets.classes import class_list

    classes = class_list("demo" if data == "demo" else "voc")
    print(
        "| | attributes | shared by classes | effective | own share | between classes | to itself |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in ("SVC + TSE as published", "SVC + mean of all attributes", "SVC + TSE"):
        config = configuration(data, row)
        inputs = EncoderInput(config.clip, out / "cache", max_pixels=config.data.max_pixels)
        clip, tse = inputs.clip, config.cams.patch_text.tse
        words, template = (classes.prompts, classes.backgrounds), config.clip.template
        texts = text_bank(clip, *words, template, cache_dir=out / "cache").classes
        sentences = described(classes, tse)
        bank = attribute_bank(clip, sentences, template[0], tse, out / "cache")
        weights = attribute_weights(texts, bank.centres, tse)
        if tse.form == "mean":
            weights = torch.full_like(weights, 1 / weights.shape[1])
        entropy = -(weights * weights.clamp_min(1e-12).log()).sum(1)
        rich = enrich(texts, bank.centres, tse)
        between = (rich @ rich.T)[~torch.eye(len(rich), dtype=torch.bool)].mean()
        cells = (
            f"{len(bank.centres)}",
            f"{int((bank.class_mask.sum(0) > 1).sum())}",
            f"{float(entropy.exp().mean()):.1f}",
            f"{float((weights * bank.class_mask).sum(1).mean()):.2f}",
            f"{float(between):.3f}",
            f"{float((rich * texts).sum(1).mean()):.3f}",
        )
        print(f"| {row} | {' | '.join(cells)} |")
    between = (texts @ texts.T)[~torch.eye(len(texts), dtype=torch.bool)].mean()
    print(f"| plain class texts | | | | | {float(between):.3f} | 1 |")


def configuration(data: str, row: str) -> Config:
    """The configuration of a row."""
    mapping = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    preset = yaml.safe_load(
        (ROOT / f"workflow/presets/{data}-excel.yaml").read_text(encoding="utf-8")
    )
    run: dict[str, Any] = {
        "name": "training-free",
        "cams": ROWS[row],
        "refine": {"method": "none"},
        "score": {"cam_thresholds": "fixed+best"},
    }
    for layer in (preset, run):
        mapping = overlay(mapping, layer)
    if mapping["cams"]["patch_text"]["blocks"] < 0:
        model = json.loads(expand_path(mapping["clip"]["model"]).read_text(encoding="utf-8"))
        mapping["cams"]["patch_text"]["blocks"] = 2 * model["vision_cfg"]["layers"] // 3
    return from_mapping(mapping)


def measure(data: str, row: str, out: Path, file: Path, *, par: bool) -> None:
    """Make the CAMs of a row and score them."""
    from benchmarks.scoring import score
    from wsss.cams.stage import run as make_cams
    from wsss.data.ingest.stage import ingest
    from wsss.demo.dataset import generate

    config = configuration(data, row)
    manifest, cams = out / "manifest", out / f"{_slug(row)}.h5"
    if data == "demo":
        train, val = config.data.demo_images
        generate(Path(config.data.root), train=train, val=val)
    if not (manifest / "manifest.csv").exists():
        ingest(manifest, variant=config.variant, data=config.data, compute=config.compute)
    make_cams(manifest, "train", (1, 1), cams, out / "cache", **STAGES["cams"].arguments(config))
    results: dict[str, tuple[float | None, float | None]] = {}
    thresholds = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        products: tuple[tuple[str, ProductName], ...] = ((CAM, "cam"), (AFFINITY, "affinity"))
        for column, product in products:
            record = folder / "record.json"
            best = score(product, config, manifest, "train", [cams], record)[1]
            results[column] = (best.miou, best.report_mean)
            assert best.background is not None
            thresholds[column] = best.background.value
        if par:
            off = {"cams": {"affinity": {"enabled": False}}}
            plain = from_mapping(overlay(config.model_dump(mode="json"), off))
            arguments = STAGES["cams"].arguments(plain)
            make_cams(manifest, "train", (1, 1), folder / "plain.h5", out / "cache", **arguments)
            threshold = thresholds[CAM]
            results[PAR] = _of_labels(plain, manifest, folder / "plain.h5", threshold, folder)
            results[BOTH] = _of_labels(config, manifest, cams, thresholds[AFFINITY], folder)
    file.write_text(json.dumps(results) + "\n", encoding="utf-8")


def _of_labels(
    config: Config, manifest: Path, cams: Path, threshold: float, folder: Path
) -> tuple[float | None, float | None]:
    """Score of labels after the affinity and PAR."""
    from benchmarks.scoring import score
    from wsss.masks.stage import run as make_masks

    masks = {
        "par": True,
        "crf": {"enabled": False},
        "background": {"rule": "constant", "value": threshold},
    }
    settings = from_mapping(overlay(config.model_dump(mode="json"), {"masks": masks}))
    masks_shard = folder / "masks.h5"
    arguments = STAGES["masks"].arguments(settings)
    make_masks(manifest, cams, masks_shard, folder / "png", **arguments)
    out = folder / "record.json"
    record = score("masks", settings, manifest, "train", [masks_shard], out)[0]
    return record.miou, record.report_mean


def _cell(score: list[float | None] | None) -> str:
    if score is None:
        return ""
    total, report = score
    assert total is not None
    return f"{100 * total:.1f}" + ("" if report is None else f" ({100 * report:.1f})")


def _slug(row: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in row)


if __name__ == "__main__":
    main()
