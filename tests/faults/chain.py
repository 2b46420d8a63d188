"""Every kind of command that writes, on a tiny data set, and the digests of its outputs."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from tests.builders import CLIP_ES, TINY
from tests.score.test_submission import Predictions
from tests.score.truth.test_coco_masks import content
from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.shard import Shard
from wsss.clip.weights import weights_digest
from wsss.config.base import overlay

from .forks import ROOT, Forks

MEASURED = "efficiency.json"
"""Holds a duration, which differs between runs."""
CONFIG: dict[str, Any] = overlay(
    overlay(CLIP_ES, TINY),
    {
        "name": "tiny",
        "compute": {"device": "cpu", "workers": 1, "batch": 2},
        "data": {"root": "data", "demo_images": [6, 4]},
        "refine": {"train": {"iterations": 8}},
        "retrain": {"iterations": 6},
        "score": {"resamples": 20},
    },
)


@dataclass(frozen=True)
class Kind:
    """A command; in its arguments ``{out}`` is the output folder, ``{base}`` an earlier one."""

    name: str
    argv: str
    outputs: tuple[str, ...]
    """Its outputs below ``{out}``: files and folders."""
    pools: bool = False
    """Whether it starts processes."""
    fills: bool = False
    """Whether it completes a folder that it has filled in part."""

    def command(self, base: Path, out: Path) -> list[str]:
        """The arguments."""
        return [part.format(base=base, out=out) for part in self.argv.split()]


_C, _M, _K = "--config {base}/tiny.json", "--manifest {base}/manifest", "--cache {base}/cache"
_TRAIN = "--out {out}/c.safetensors --log {out}/loss.csv --work {out}/work"
_SCORED = "--split train --out {out}/r.json " + _C
_RECORDS = ("r.json", "r.images.h5")
CHAIN: tuple[Kind, ...] = (
    Kind("demo make", "demo make {out}/data --train 6 --val 4 --quiet", ("data",)),
    Kind("ingest", f"ingest --out {{out}}/manifest {_C}", ("manifest",)),
    Kind("cams", f"cams {_M} --out {{out}}/x.h5 {_K} {_C}", ("x.h5",)),
    Kind("seeds", f"seeds {{base}}/cams/x.h5 {_M} --out {{out}}/x.h5 --png {{out}}/png {_C}",
         ("x.h5", "png")),
    Kind("refine-train", f"refine-train {{base}}/cams/x.h5 {_M} {_TRAIN}"
         f" --efficiency {{out}}/{MEASURED} {_K} {_C}", ("c.safetensors", "loss.csv", MEASURED)),
    Kind("refine-import", f"refine-import {{base}}/refine-train/c.safetensors {_M}"
         f" --out {{out}}/c.safetensors --report {{out}}/report.json {_K} {_C}",
         ("c.safetensors", "report.json")),
    Kind("refine-apply", f"refine-apply {{base}}/cams/x.h5 {_M} --out {{out}}/x.h5"
         f" --checkpoint {{base}}/refine-train/c.safetensors {_K} {_C}", ("x.h5",)),
    Kind("refine-predict", f"refine-predict {_M} --out {{out}}/x.h5 --split val"
         f" --checkpoint {{base}}/refine-train/c.safetensors {_K} {_C}", ("x.h5",)),
    Kind("masks", f"masks {{base}}/refine-apply/x.h5 {_M} --out {{out}}/x.h5"
         f" --png {{out}}/png {_C}", ("x.h5", "png")),
    Kind("retrain", f"retrain {{base}}/masks/x.h5 {_M} {_TRAIN} {_C}",
         ("c.safetensors", "loss.csv")),
    Kind("predict", f"retrain-predict {_M} --checkpoint {{base}}/retrain/c.safetensors --split val"
         f" --out {{out}}/x.h5 {_C}", ("x.h5",)),
    Kind("score cam", f"score cam {{base}}/cams/x.h5 {_M} {_SCORED}", _RECORDS),
    Kind("score affinity", f"score affinity {{base}}/cams/x.h5 {_M} {_SCORED}", _RECORDS),
    Kind("score blob", f"score blob {_M} {_SCORED}", _RECORDS),
    Kind("score seeds", f"score seeds {{base}}/seeds/x.h5 {_M} {_SCORED}", _RECORDS),
    Kind("score refiner_scores", f"score refiner_scores {{base}}/refine-apply/x.h5 {_M}"
         f" {_SCORED}", _RECORDS),
    Kind("score masks", f"score masks {{base}}/masks/x.h5 {_M} {_SCORED}", _RECORDS),
    Kind("score refiner_prediction", f"score refiner_prediction {{base}}/refine-predict/x.h5 {_M}"
         f" {_SCORED.replace('train', 'val')}", _RECORDS),
    Kind("score segmenter", f"score segmenter {{base}}/predict/x.h5 {_M}"
         f" {_SCORED.replace('train', 'val')}", _RECORDS),
    Kind("table", "table {base}/score-cam/r.json {base}/score-masks/r.json --out {out}",
         tuple(f"{name}.{end}" for name in ("table", "classes", "pairs")
               for end in ("md", "csv", "html"))),
    Kind("compare", "compare {base}/score-cam/r.json {base}/score-masks/r.json --out {out}",
         ("sweep.md", "sweep.csv", "sweep.html")),
    Kind("paper-table", f"paper-table {ROOT}/workflow/tables/voc12_classes.yaml --out {{out}}",
         tuple(f"voc12_classes.{end}" for end in ("md", "csv", "html", "png"))),
    Kind("efficiency", "efficiency {base}/refine-train/efficiency.json --out {out}",
         ("efficiency.md", "efficiency.csv", "efficiency.html")),
    Kind("class-chart", "class-chart {base}/score-cam/r.json --out {out}/chart.png",
         ("chart.png",)),
    Kind("loss-curve", "loss-curve {base}/retrain/loss.csv --out {out}/loss.png", ("loss.png",)),
    Kind("contact-sheet", f"contact-sheet {_M} --cams {{base}}/cams/x.h5"
         f" --masks {{base}}/masks/x.h5 --out {{out}}/sheet.png {_C}", ("sheet.png",)),
    Kind("truth tags", "truth tags --out {out}/tags.csv --config {base}/voc.json", ("tags.csv",)),
    Kind("truth coco-masks", "truth coco-masks {base}/coco --out {out}/masks --part val"
         " --workers 1", ("masks/crowd_void/val2014.json", "masks/crowd_void/val2014"), fills=True),
    Kind("truth sbd-masks", "truth sbd-masks {base}/data {base}/sbd --list {base}/sbd/list.txt"
         " --out {out}/masks", ("masks",), fills=True),
    Kind("export voc-submission", "export voc-submission {base}/voc/1.h5 {base}/voc/2.h5"
         " --manifest {base}/voc/manifest --list {base}/voc/test.txt --out {out}/packed.tgz",
         ("packed.tgz",)),
    Kind("masks, 2 processes", f"masks {{base}}/refine-apply/x.h5 {_M} --out {{out}}/x.h5"
         f" --png {{out}}/png --workers 2 {_C}", ("x.h5", "png"), pools=True),
    Kind("ingest, 2 processes", f"ingest --out {{out}}/manifest --workers 2 {_C}", ("manifest",),
         pools=True),
    Kind("truth coco-masks, 2 processes", "truth coco-masks {base}/coco --out {out}/masks"
         " --part val --workers 2", ("masks/crowd_void/val2014.json", "masks/crowd_void/val2014"),
         pools=True, fills=True),
)  # fmt: skip
"""In an order in which each command has its inputs."""
_ALIKE = frozenset({"compare", "efficiency"} | {f"score {what}" for what in (
    "affinity", "blob", "seeds", "refiner_scores", "refiner_prediction", "segmenter",
)})  # fmt: skip
KINDS = CHAIN if os.environ.get("WSSS_ALL_KINDS") else tuple(
    kind for kind in CHAIN if kind.name not in _ALIKE
)  # fmt: skip
"""Those that write in different ways, or all with `WSSS_ALL_KINDS`."""
_WAYS = ("ingest", "cams", "masks", "retrain", "refine-train", "score masks", "table",
         "truth coco-masks", "truth sbd-masks", "export voc-submission",
         "masks, 2 processes")  # fmt: skip
WAYS = KINDS if os.environ.get("WSSS_ALL_KINDS") else tuple(
    kind for kind in CHAIN if kind.name in _WAYS
)  # fmt: skip
"""One for each way of writing: a file, a folder, several files, into a lasting folder, in several
processes, with a lock; or with `WSSS_ALL_KINDS` all."""


def build(base: Path, forks: Forks) -> dict[str, float]:
    """Run the chain undisturbed; gives the seconds of each kind, by name."""
    voc = CONFIG | {"data": {"kind": "voc", "root": str(base / "data"), "train_list": "train"}}
    voc["data"]["val_list"] = "val"
    demo = CONFIG | {"data": CONFIG["data"] | {"root": str(base / "data")}}
    for name, config in {"tiny": demo, "voc": voc}.items():
        (base / f"{name}.json").write_text(json.dumps(config))
    (base / "coco/annotations").mkdir(parents=True)
    (base / "coco/annotations/instances_val2014.json").write_text(json.dumps(content(12)))
    (base / "sbd/cls").mkdir(parents=True)
    for image in "abcd":
        segmentation = np.full((40, 50), ord(image) - ord("a"), np.uint8)
        fields = {"Boundaries": [], "Segmentation": segmentation, "CategoriesPresent": [1]}
        savemat(base / f"sbd/cls/{image}.mat", {"GTcls": fields})
    (base / "sbd/list.txt").write_text("a\nb\nc\nd\n")
    (base / "voc").mkdir()
    Predictions(base / "voc").shards()
    seconds = {}
    for kind in CHAIN:
        out = output_folder(base, kind)
        done = forks.run(kind.command(base, out), pools=kind.pools)
        assert done.code == 0, f"{kind.name}: {done.output}"
        assert not done.survivors
        seconds[kind.name] = done.seconds
    return seconds


def output_folder(base: Path, kind: Kind) -> Path:
    """Folder to which the undisturbed run of a kind writes."""
    if kind.name in {"demo make", "ingest"}:
        return base
    return base / kind.name.replace(",", "").replace(" ", "-")


def digests(kind: Kind, out: Path) -> dict[str, str]:
    """Digest of the content of each existing output.

    Raises:
        ArtifactError: an output is damaged.
    """
    by_output = {}
    for name in kind.outputs:
        path = out / name
        if path.is_dir():
            by_output[name] = _tree(path)
        elif path.exists():
            by_output[name] = _file(path)
    return by_output


def _tree(folder: Path) -> str:
    """Of all files below a folder; manifests are read as later stages read them."""
    if (folder / "manifest.csv").exists():
        from wsss.data.manifest_folder import load

        load(folder)
    shown = {
        str(path.relative_to(folder)): _file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.parts and ".tmp-" not in str(path)
    }
    if folder.name == "manifest" and "manifest.csv" not in shown:
        return ""  # an unfinished ingest
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def _file(path: Path) -> str:
    if path.suffix == ".h5":
        with Shard(path) as shard:
            assert [item.id for item in shard] == shard.ids
            return shard.content
    if path.suffix == ".safetensors":
        tensors, _ = load_checkpoint(path)
        return weights_digest(tensors)
    if path.name == MEASURED:
        return "" if "trained_parameters" in json.loads(path.read_text()) else path.read_text()
    return hashlib.sha256(path.read_bytes()).hexdigest()
