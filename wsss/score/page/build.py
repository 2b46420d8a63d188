"""Build the result page of a run: ``index.html``, with its pictures in a folder beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from wsss.artifacts.atomic import atomic_path, write_text
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import track
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.compute.pool import WorkerPool
from wsss.config.base import Supervision
from wsss.config.data import DataConfig
from wsss.config.score import PicturesConfig
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Manifest, Sample
from wsss.data.manifest_folder import load, manifest_digests
from wsss.score.figures.contact_sheet import run_title, sample_images, shown_truth
from wsss.score.image_counts_file import Scored, read_scored
from wsss.score.page.compare import compared
from wsss.score.page.files import EMBEDDED, INDEX, RunFiles, Shown, write_shown
from wsss.score.page.numbers import SIZES, rows_of
from wsss.score.page.palette import hex_colours, picture_palette
from wsss.score.page.pictures import PHOTO, TRUTH, Layer, PictureTask, draw
from wsss.score.page.script import script_json
from wsss.score.product import SHOWN_FIRST

SPLITS = ("train", "val")
LAYERS = {
    layer.key: layer
    for layer in (
        Layer("cam", "CAM", "cams", ("cam",), heat=True),
        Layer("cam_affinity", "CAM + affinity", "cams", ("cam_affinity",), heat=True),
        Layer("seed", "seeds", "seeds", ("label",), hatched=True),
        Layer("refined", "refined CAM", "scores", ("score",), heat=True),
        Layer("mask", "pseudo mask", "masks", ("label",)),
        Layer("train_mask", "train mask", "masks", ("train",), hatched=True),
        Layer("refiner", "refiner's prediction", "predictions", SHOWN_FIRST),
        Layer("prediction", "segmenter's prediction", "predictions", SHOWN_FIRST),
    )
}
"""Pictures by key, in the order of the chain."""
PRODUCTS: dict[str, tuple[str, ...]] = {
    "cams": ("cam", "cam_affinity"),
    "seeds": ("seed",),
    "scores_grid": ("refined",),
    "masks": ("mask", "train_mask"),
    "refiner_predictions": ("refiner",),
    "predictions": ("prediction",),
}
"""The layers of each product, by its folder."""


def side_by_side(first: Shown, second: Shown, out: Path, *, workers: int) -> None:
    """Write the page of two runs on the same images; both come from `read_shown`."""
    make_page(
        first.run,
        out,
        supervision=first.supervision,
        data=first.data,
        pictures=first.pictures,
        workers=workers,
        against=second.run,
    )


@dataclass
class _Split:
    """The images of a split that the page shows, and where their layers are."""

    samples: list[Sample]
    total: int
    layers: dict[str, dict[str, Path]] = field(default_factory=dict)
    """By layer, then by image: the shard."""


def make_page(
    run: RunFiles,
    out: Path,
    *,
    supervision: Supervision,
    data: DataConfig,
    pictures: PicturesConfig,
    workers: int,
    against: RunFiles | None = None,
    embedded: Path | None = None,
) -> None:
    """Write ``index.html`` to ``out``, and its pictures to ``out/page``.

    Args:
        supervision: of the run; titles name an upper bound.
        pictures: how many images the pages have at most.
        against: a run on the same images that is shown side by side.
        embedded: page to write as well that holds its pictures itself, for Snakemake's report; it
            has as many images per split as a contact sheet.

    Raises:
        TruthError: ground truth is missing or of another size than its image.
        ArtifactError: a shard or a record is missing or damaged, or nothing can be shown.
    """
    manifest, classes = load(run.manifest)
    scored = read_scored(run.records)
    inputs = manifest_digests(run.manifest) | {str(p): digest_file(p) for p in run.records}
    drawings: dict[str, str] = {}
    palette = picture_palette(classes.label_count)
    splits: dict[str, Any] = {}
    fewer: dict[str, Any] = {}
    inside: dict[str, str] = {}
    with atomic_path(out / "page") as folder, WorkerPool(workers) as pool:
        folder.mkdir()
        for name in SPLITS:
            split = _open_split(manifest, name, run, pictures.gallery_images, inputs)
            if split is None:
                continue
            if against is not None:
                _add_run(split, against)
            rows = [entry for entry in scored if entry.record.split == name]
            truth = shown_truth(data, manifest.split(name), split.samples, name)
            sources = truth.sources if truth is not None else {}
            tasks = (
                (s.id, PictureTask(s, _layers(split, s.id), sources.get(s.id), palette,
                                   data.max_pixels))
                for s in split.samples
            )  # fmt: skip
            embedded_ids = {
                s.id for s in sample_images(Manifest(tuple(split.samples)), pictures.contact_images)
            }
            drawn = pool.map(draw, tasks)
            for index, (image, layers) in enumerate(
                track(drawn, total=len(split.samples), description=f"Drawing {name}")
            ):
                for key, content in layers.items():
                    file = f"{name}-{index}-{key}.webp"
                    (folder / file).write_bytes(content)
                    drawings[file] = hashlib.sha256(content).hexdigest()
                    if embedded is not None and image in embedded_ids:
                        inside[file] = (
                            "data:image/webp;base64," + base64.b64encode(content).decode()
                        )
            splits[name] = _content(split, classes, rows, sources, range(len(split.samples)))
            fewer[name] = _content(
                split, classes, rows, sources,
                [i for i, s in enumerate(split.samples) if s.id in embedded_ids],
            )  # fmt: skip
        if not splits:
            raise ArtifactError(
                f"{run.name}: has no CAMs, masks or predictions to show; run it first"
            )
        page = {
            "run": run_title(run.name, supervision, run.shards.get("predictions", ())),
            "classes": ["background", *classes.names],
            "colours": hex_colours(palette, classes.label_count),
            "sizes": list(SIZES),
            "protocols": list(SHOWN_FIRST),
            "against": None if against is None else compared(scored, read_scored(against.records)),
            "other": None if against is None else against.name,
        }
        pages = {INDEX: page_html({**page, "splits": splits, "folder": "page/"})}
        if embedded is not None:
            small = {**page, "splits": fewer, "folder": "", "inside": inside}
            pages[EMBEDDED] = page_html(small)
        values = {"name": run.name, "supervision": supervision, "data": data}
        provenance = STAGES["page"].provenance(values | {"pictures": pictures}, inputs=inputs)
        shown = Shown(run, supervision, data, pictures)
        write_shown(folder, shown, provenance, pages, drawings)
    write_text(out / "index.html", pages[INDEX])
    if embedded is not None:
        write_text(embedded, pages[EMBEDDED])


def page_html(content: Mapping[str, Any]) -> str:
    """The page of some content, in one file without its pictures."""
    assets = files("wsss.score.page") / "assets"
    page = (assets / "page.html").read_text("utf-8")
    for name in ("page.css", "charts.js", "page.js"):
        page = page.replace(f"__{name}__", (assets / name).read_text("utf-8"))
    return page.replace("__DATA__", script_json(content))


def _open_split(
    manifest: Manifest, name: str, run: RunFiles, most: int, inputs: dict[str, str]
) -> _Split | None:
    """The images of a split and the shards that hold their layers; None where there is nothing.

    Digests of the shards join ``inputs``.
    """
    members = Manifest(tuple(sample for sample in manifest if sample.split == name))
    split = _Split(sample_images(members, most), len(members))
    ids = {sample.id for sample in split.samples}
    for product, paths in run.shards.items():
        for key in PRODUCTS[product]:
            of_layer = _shards_of(LAYERS[key], paths, ids, name, inputs)
            if of_layer:
                split.layers[key] = of_layer
    return split if split.layers else None


def _add_run(split: _Split, against: RunFiles) -> None:
    """Add the layers of another run that end its stages: masks and predictions."""
    ids = {sample.id for sample in split.samples}
    for product in ("masks", "refiner_predictions", "predictions"):
        key = PRODUCTS[product][0]
        of_layer = _shards_of(LAYERS[key], against.shards.get(product, ()), ids, "", {})
        if of_layer:
            split.layers[f"other_{key}"] = of_layer


def _shards_of(
    layer: Layer, paths: Sequence[Path], ids: set[str], split: str, inputs: dict[str, str]
) -> dict[str, Path]:
    """The shard of each image that has a layer."""
    of_image: dict[str, Path] = {}
    for path in paths:
        with Shard(path, kind=layer.kind) as shard:
            inputs[str(path)] = shard.content
            images = ids & set(shard.ids)
            if not images:
                continue
            first = shard.read(min(images))
            if split and first.attrs.get("split", split) != split:
                continue  # an id is unique within a split only
            if any(name in first.arrays for name in layer.arrays):
                of_image |= dict.fromkeys(images, path)
    return of_image


def _layers(split: _Split, image: str) -> tuple[tuple[str, Layer, Path], ...]:
    return tuple(
        (key, LAYERS[key.removeprefix("other_")], shards[image])
        for key, shards in split.layers.items()
        if image in shards
    )


def _content(
    split: _Split,
    classes: ClassList,
    rows: Sequence[Scored],
    truth: Collection[str],
    indices: Sequence[int],
) -> dict[str, Any]:
    """The part of the page's data on a split, with the images at some indices.

    Args:
        truth: ids of the images that have a truth.
    """
    samples = [split.samples[index] for index in indices]
    layers = [PHOTO, *sorted(split.layers, key=_order), *([TRUTH] if truth else [])]
    images_of = {**split.layers, PHOTO: [s.id for s in samples], TRUTH: truth}
    return {
        "total": split.total,
        "layers": [{"key": key, "title": _title(key)} for key in layers],
        "images": [
            {
                "id": s.id,
                "file": index,
                "size": [s.width, s.height],
                "tags": list(s.tags),
                "lacks": [key for key in layers if s.id not in images_of[key]],
            }
            for index, s in zip(indices, samples, strict=True)
        ],
        "rows": rows_of(rows, [s.id for s in samples]),
    }


def _order(key: str) -> tuple[int, bool]:
    return list(LAYERS).index(key.removeprefix("other_")), key.startswith("other_")


def _title(key: str) -> str:
    if key in (PHOTO, TRUTH):
        return key
    title = LAYERS[key.removeprefix("other_")].title
    return f"{title} of the other run" if key.startswith("other_") else title
