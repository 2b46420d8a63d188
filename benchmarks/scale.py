"""Data sets of full size through the workflow: `python -m benchmarks.scale dag` and `… memory`.

Images and labels are copies of a few tiny files, so that the numbers of files, rows and items are
those of VOC 2012 (10,582 training images) and COCO 2014 (82,081) while nothing takes long.

- dag: seconds of `snakemake -n` on an untouched data set, next to that of the embedded demo.
- memory: peak memory of each stage that reads all images (scores of CAMs and masks, training of
  the refiner and of the segmenter) with a tenth of the images and with all; `empty` is a process
  that only imports the stages.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from benchmarks.ablation import ROOT

SIZES = {"voc": 10_582, "coco": 82_081}
SIDE = 64  # pixels
GATHERING = ("score cam", "score masks", "refine", "retrain")
VOC_VAL = 1449
_LINKS = 50_000  # names a file can have: 65,000 on ext4


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["dag", "memory"])
    parser.add_argument("--sets", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        gather(options.folder, options.stage)
        return
    with tempfile.TemporaryDirectory() as folder:
        (time_dags if options.what == "dag" else compare_memory)(Path(folder), options.sets)


def time_dags(folder: Path, sets: list[str]) -> None:
    """Print seconds of a dry run of each data set."""
    demo = dry_run(folder, {"name": "demo-of-benchmark"})
    print(f"demo: {demo:.1f} s")
    for name in sets:
        root = folder / name
        images = make_voc(root, SIZES[name]) if name == "voc" else make_coco(root, SIZES[name])
        settings = {"name": f"{name}-of-benchmark", "shards": 32, "data": data_of(name, root)}
        seconds = dry_run(folder, settings)
        print(f"{name}: {images:,} images, {seconds:.1f} s, {seconds / demo:.1f} of the demo")


def data_of(name: str, root: Path) -> dict[str, Any]:
    """The section ``data``."""
    if name == "coco":
        return {"kind": "coco", "root": str(root)}
    return {"kind": "voc", "root": str(root), "train_list": "trainaug", "tags": "xml"}


def dry_run(folder: Path, settings: dict[str, Any]) -> float:
    """Seconds of `snakemake -n` in a copy of the project, the second time."""
    project = folder / "project"
    if not project.exists():
        for name in ("wsss", "workflow", "envs"):
            shutil.copytree(ROOT / name, project / name)
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(ROOT / name, project / name)
    (project / "settings.yaml").write_text(json.dumps(settings), encoding="utf-8")
    engine = Path(sys.executable).with_name("snakemake")
    command = [str(engine), "-n", "--quiet", "--configfile", "settings.yaml"]
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(command, cwd=project, check=True, capture_output=True)
        seconds = time.perf_counter() - start
    return seconds


def _copies(source: Path, folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        if index % _LINKS == 0:
            first = folder / name
            shutil.copyfile(source, first)
        else:
            os.link(first, folder / name)


def _sources(root: Path, side: int = SIDE) -> tuple[Path, Path]:
    """A photo and a label map."""
    root.mkdir(parents=True)
    photo, label = root / "photo.jpg", root / "label.png"
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(photo)
    index = np.zeros((side, side), np.uint8)
    index[: side // 2] = 1
    Image.fromarray(index, "L").save(label)
    return photo, label


def make_voc(root: Path, count: int) -> int:
    """A VOC devkit of ``count`` training images and as many validation images as VOC has."""
    photo, label = _sources(root)
    ids = [f"{index:06}" for index in range(count + VOC_VAL)]
    lists = {"trainaug": ids[:count], "val": ids[count:]}
    _copies(photo, root / "JPEGImages", [f"{image}.jpg" for image in ids])
    _copies(label, root / "SegmentationClassAug", [f"{image}.png" for image in lists["trainaug"]])
    _copies(label, root / "SegmentationClass", [f"{image}.png" for image in lists["val"]])
    tags = root / "tags.xml"
    shape = f"<size><width>{SIDE}</width><height>{SIDE}</height></size>"
    tags.write_text(
        f"<annotation>{shape}<object><name>cat</name></object></annotation>", encoding="utf-8"
    )
    _copies(tags, root / "Annotations", [f"{image}.xml" for image in ids])
    folder = root / "ImageSets/Segmentation"
    folder.mkdir(parents=True)
    for name, entries in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    return count


def make_coco(root: Path, count: int) -> int:
    """A COCO folder with the annotations of ``count`` training images."""
    photo, _ = _sources(root)
    from wsss.data.datasets.classes import class_list

    classes = class_list("coco").names
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(classes)]
    (root / "annotations").mkdir()
    for part, size_of_part in (("train", count), ("val", 40_137)):
        names = [f"COCO_{part}2014_{index:012}.jpg" for index in range(size_of_part)]
        _copies(photo, root / f"{part}2014", names)
        size = {"width": SIDE, "height": SIDE}
        images = [{"id": i, "file_name": name, **size} for i, name in enumerate(names)]
        box = [[0, 0, SIDE, 0, SIDE, SIDE // 2, 0, SIDE // 2]]
        shape = {"segmentation": box, "iscrowd": 0, "area": SIDE * SIDE / 2}
        shapes = [{"id": i, "image_id": i, "category_id": 17, **shape} for i in range(size_of_part)]
        content = {"images": images, "annotations": shapes, "categories": categories}
        (root / f"annotations/instances_{part}2014.json").write_text(
            json.dumps(content), encoding="utf-8"
        )
    return count


def compare_memory(folder: Path, sets: list[str]) -> None:
    """Print the peak memory of each stage, with few images and with many."""
    largest = max(SIZES[name] for name in sets)
    for count in (largest // 10, largest):
        root = folder / str(count)
        prepare(root, count)
        for stage in ("empty", *GATHERING):
            command = [sys.executable, "-m", "benchmarks.scale", "memory"]
            command += ["--stage", stage, "--folder", str(root)]
            process = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            peak = float(process.stdout.splitlines()[-1])
            print(f"{count:,} images, {stage}: {peak / 2**20:,.0f} MiB", flush=True)


def settings(root: Path) -> Any:
    """The configuration of the stages that read all images."""
    from wsss.config.load import from_mapping

    return from_mapping(
        {
            "name": "scale",
            "compute": {"workers": 1},
            "data": {"kind": "voc", "root": str(root), "val_list": ""},
            "cams": {"splits": ["train"]},
            "refine": {
                "method": "weclip",
                "train": {"iterations": 20, "warmup": 1},
                "weclip": {"width": 16, "crop_visibility": "crop"},
            },
            "retrain": {"iterations": 20, "warmup": 1, "batch": 4},
        }
    )


def prepare(
    root: Path, count: int, *, side: int = SIDE, classes: Literal["voc", "coco", "demo"] = "voc"
) -> None:
    """Photos, truth, manifest, and shards of CAMs and masks.

    Args:
        root: folder to write.
        count: of images.
        side: of the images, pixels.
        classes: name of the class list.
    """
    from wsss.artifacts.digest import digest_file
    from wsss.artifacts.provenance import Provenance
    from wsss.artifacts.shard import Item, ShardWriter
    from wsss.data.datasets.classes import class_list
    from wsss.data.manifest import Manifest, Sample, write_manifest
    from wsss.data.manifest_folder import CLASSES, MANIFEST, write_classes

    photo, label = _sources(root, side)
    ids = [f"{index:06}" for index in range(count)]
    _copies(label, root / "SegmentationClass", [f"{image}.png" for image in ids])
    _copies(photo, root / "JPEGImages", [f"{image}.jpg" for image in ids])
    class_names, digest = class_list(classes), digest_file(photo)
    samples = tuple(
        Sample(i, "train", root / f"JPEGImages/{i}.jpg", side, side, digest, (0,)) for i in ids
    )
    folder = root / "manifest"
    folder.mkdir()
    write_manifest(folder / MANIFEST, samples, class_names.names)
    write_classes(folder / CLASSES, class_names)
    maps = np.full((1, side // 8, side // 8), 0.5, np.float16)
    labels = np.zeros((side, side), np.uint8)
    arrays: dict[str, dict[str, np.ndarray]] = {
        "cams": {"cam": maps, "cam_affinity": maps},
        "masks": {"label": labels, "train": labels},
    }
    attributes: dict[str, Any] = {
        "classes": [0],
        "size": [side, side],
        "grid": [side // 8, side // 8],
    }
    for kind, content in arrays.items():
        for index in range(1, 9):
            part = Manifest(samples).shard(index, 8)
            provenance = Provenance(stage=kind, config={}, seed=0, code="", packages={})
            path = root / f"{kind}/{index}-of-8.h5"
            path.parent.mkdir(exist_ok=True)
            images = [sample.id for sample in part]
            with ShardWriter(path, kind=kind, ids=images, provenance=provenance) as writer:
                for image in images:
                    writer.add(Item(image, content, attributes))


def gather(root: Path, stage: str) -> None:
    """Run one stage and print this process's peak memory, and that of its children, in bytes."""
    from benchmarks.scoring import score
    from wsss.artifacts.stage import STAGES
    from wsss.refine import stage as refine
    from wsss.retrain import train as retrain

    config, manifest = settings(root), root / "manifest"
    cams, masks = (sorted((root / kind).glob("*.h5")) for kind in ("cams", "masks"))
    work = root / "work" / stage.replace(" ", "-")
    if stage == "score cam":
        score("cam", config, manifest, "train", cams, work / "record.json")
    elif stage == "score masks":
        score("masks", config, manifest, "train", masks, work / "record.json")
    elif stage == "refine":
        files = (work / "checkpoint.safetensors", work / "log.csv")
        arguments = STAGES["refine_train"].arguments(config)
        refine.train(manifest, cams, *files, work / "steps", work / "cache", **arguments)
    elif stage == "retrain":
        files = (work / "weights.safetensors", work / "log.csv")
        arguments = STAGES["retrain"].arguments(config)
        retrain.train(manifest, masks, *files, work / "steps", **arguments)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    print(max(1024 * resource.getrusage(kind).ru_maxrss for kind in kinds))


if __name__ == "__main__":
    main()
