"""Records, tables and pictures, compared with what they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.png_stamp import picture_provenance
from wsss.data.manifest_folder import MANIFEST
from wsss.photos.record import read_record
from wsss.pipeline.products import RUN_TABLES, SCORED, table_paths
from wsss.pipeline.verify.chain import Chain
from wsss.score.figures.contact_sheet import sample_images, shown_truth
from wsss.score.image_counts_file import (
    image_counts_path,
    read_image_boundary,
    read_image_counts,
    read_scored,
)
from wsss.score.inputs import truth_digest
from wsss.score.page.files import edits, page_provenance
from wsss.score.product import PRODUCTS, ProductName
from wsss.score.record import Record, boundary_numbers, numbers, read_records
from wsss.score.tables.classes import class_table, pair_table
from wsss.score.tables.comparison import comparison
from wsss.score.tables.efficiency import efficiency_table
from wsss.score.tables.write import Texts, score_table


@dataclass
class Results:
    """The ends of the chain of some runs."""

    chain: Chain

    def records(self, run: str) -> list[Path]:
        """Check the records of a run, and their counts per image."""
        files = self.chain.runs.records(run)
        for (product, split), text in files.items():
            path, folder = Path(text), SCORED[product]
            manifest = self.chain.manifest(run)
            has_shards = PRODUCTS[product].shards
            shards = self.chain.shards(folder, run, split) if has_shards else []
            producer = self.chain.runs.producer(folder, run)

            reasons = partial(self._records, path, product, split, producer, manifest, shards)
            self.chain.findings.check(path, "score", reasons, [manifest / MANIFEST, *shards])
            counts = image_counts_path(path)
            self.chain.findings.check(counts, "score", partial(_counts, path), [path])
        return list(map(Path, files.values()))

    def _records(
        self,
        path: Path,
        product: ProductName,
        split: str,
        run: str,
        manifest: Path,
        shards: list[Path],
    ) -> Iterator[str]:
        chain, stage = self.chain, f"score_{product}"
        inputs = dict(chain.digests.get(manifest, {}))
        inputs |= {p.name: chain.contents[p] for p in shards if p in chain.contents}
        if not chain.quick and manifest in chain.manifests:
            data = chain.runs[run].config.data
            inputs["truth"] = truth_digest(data, chain.manifests[manifest].split(split), split)
        weights = {n: d for shard in shards for n, d in chain.weights.get(shard, {}).items()}
        for record in read_records([path]):
            if (record.product, record.split) != (product, split):
                yield f"holds {record.product} of {record.split}, expected {product} of {split}"
            yield from chain.expected.differences(
                record.provenance, stage, run, inputs=inputs, weights=weights
            )
            matrix = np.array(record.confusion, np.int64)
            names, report = list(record.iou), record.report_classes
            fields = numbers(matrix, names, report, record.class_mean)
            for name, value in fields.items():
                if getattr(record, name) != value:
                    raise ArtifactError(
                        f"its {name} is not what its confusion matrix gives: it was edited"
                    )

    def tables(self, run: str) -> None:
        """Check the tables of a run."""
        runs = self.chain.runs
        last = set(runs.last_products(run))
        if last.issuperset(table_paths(run, "table")):
            records = self.records(run)
            makers = {
                "table": lambda: score_table(records),
                "classes": lambda: class_table(read_scored(records)),
                "pairs": lambda: pair_table(read_scored(records)),
            }
            for name in RUN_TABLES:
                self._table(run, name, "table", makers[name], records)
        if last.issuperset(table_paths(run, "efficiency")):
            self.chain.training("refine", run)
            cost = Path(runs.folder("refine", run)) / "efficiency.json"
            self._table(run, "efficiency", "efficiency", lambda: efficiency_table(cost), [cost])

    def overviews(self) -> None:
        """Check table and chart of all runs of the configuration, if there are several."""
        runs = self.chain.runs
        many = [run for run in runs.final if run != runs.name]
        if not runs.overviews:
            return
        files = {run.removeprefix(f"{runs.name}/"): self.records(run) for run in many}
        every = list(dict.fromkeys(path for paths in files.values() for path in paths))

        def texts() -> Texts:
            rows = {label: read_scored(paths) for label, paths in files.items()}
            return comparison(rows, runs.name)

        self._table(runs.name, "sweep", "sweep_table", texts, every)
        for picture in map(Path, runs.overviews):
            if picture.suffix == ".png":
                self._chart(picture, "noise_chart", runs.name, every)

    def _table(
        self, run: str, name: str, rule: str, texts: Callable[[], Texts], sources: list[Path]
    ) -> None:
        texts = cache(texts)  # of the three forms, made together
        for path in map(Path, table_paths(run, name)):

            def reasons(path: Path = path) -> Iterator[str]:
                if all(source.exists() for source in sources):
                    expected = texts()[path.suffix.lstrip(".")]
                    if path.read_bytes() != expected.encode():
                        yield (
                            f"is not what {sources[0].parent} gives now: it was edited, or made "
                            "from others or by other code"
                        )

            self.chain.findings.check(path, rule, reasons, sources)

    def pictures(self, run: str) -> None:
        """Check the pictures of a run."""
        runs = self.chain.runs
        for text in runs.last_products(run):
            path = Path(text)
            if path.suffix != ".png":
                continue
            name = path.stem
            if name == "class_iou":
                self._chart(path, "class_chart", run, self.records(run))
            elif name in ("refiner_loss", "segmenter_loss"):
                product = "refine" if name == "refiner_loss" else "segmenter"
                self.chain.training(product, run)
                loss = Path(runs.folder(product, run)) / "loss.csv"
                self._chart(path, "loss_curve", run, [loss])
            else:  # named by the split
                self._contact_sheet(path, run, name)

    def page(self, run: str) -> None:
        """Check the result page of a run."""
        chain, folder = self.chain, Path(f"results/{run}")
        manifest, config = chain.manifest(run), chain.runs[run].config
        shards = [
            shard
            for split in ("train", "val")
            for product in chain.runs.on_page(run, split)
            for shard in chain.shards(product, run, split)
        ]
        records = self.records(run) if config.data.has_truth else []

        def reasons() -> Iterator[str]:
            inputs = dict(chain.digests.get(manifest, {}))
            inputs |= {str(shard): d for shard, d in chain.contents.items() if shard in shards}
            inputs |= {str(path): digest_file(path) for path in records if path.exists()}
            yield from edits(folder, quick=chain.quick)
            stored = page_provenance(folder)
            yield from chain.expected.differences(stored, "page", run, inputs=inputs)

        sources = [manifest / MANIFEST, *shards, *records]
        chain.findings.check(folder / "index.html", "page", reasons, sources)
        small = folder / "pictures" / "page.html"
        chain.findings.check(small, "page", lambda: edits(folder, small), [folder / "index.html"])

    def gallery(self, run: str) -> None:
        """Check what a run of photos wrote for its owner."""
        chain = self.chain
        manifest, path = chain.manifest(run), Path(f"results/{run}/gallery.json")
        masks = [
            shard
            for split in chain.runs[run].config.cam_splits
            for shard in chain.shards("masks", run, split)
        ]

        def reasons() -> Iterator[str]:
            record = read_record(path)
            if not record.is_complete():
                yield f"files in {record.folder} are missing or were exchanged"
            inputs = dict(chain.digests.get(manifest, {}))
            inputs |= {str(shard): d for shard, d in chain.contents.items() if shard in masks}
            yield from chain.expected.differences(record.provenance, "gallery", run, inputs=inputs)

        chain.findings.check(path, "gallery", reasons, [manifest / MANIFEST, *masks])

    def _chart(self, path: Path, rule: str, run: str, sources: list[Path]) -> None:
        def reasons() -> Iterator[str]:
            inputs = {str(source): digest_file(source) for source in sources if source.exists()}
            yield from self._picture(path, "charts", run, inputs)

        self.chain.findings.check(path, rule, reasons, sources)

    def _contact_sheet(self, path: Path, run: str, split: str) -> None:
        chain = self.chain
        manifest = chain.manifest(run)
        shards = [
            shard
            for product in chain.runs.shown(run, split)
            for shard in chain.shards(product, run, split)
        ]

        def reasons() -> Iterator[str]:
            config = chain.runs[run].config
            inputs = dict(chain.digests.get(manifest, {}))
            inputs |= {str(shard): d for shard, d in chain.contents.items() if shard in shards}
            if not chain.quick and manifest in chain.manifests:
                listed = chain.manifests[manifest].split(split)
                samples = sample_images(listed, config.pictures.contact_images)
                if truth := shown_truth(config.data, listed, samples, split):
                    inputs["truth"] = truth.digest()
            yield from self._picture(path, "pictures", run, inputs)

        chain.findings.check(path, "contact_sheet", reasons, [manifest / MANIFEST, *shards])

    def _picture(
        self, path: Path, stage: str, run: str, inputs: Mapping[str, str]
    ) -> Iterator[str]:
        stored = picture_provenance(path)
        yield from self.chain.expected.differences(stored, stage, run, inputs=inputs)


def _counts(path: Path) -> list[str]:
    """Check that the counts per image are those of the records."""
    for record in read_records([path]):
        if record.image_counts and not _agrees(record, path):
            raise ArtifactError(
                f"do not add up to the confusion matrix or the boundary IoU of {record.protocol} "
                f"in {path.name}"
            )
    return []


def _agrees(record: Record, path: Path) -> bool:
    matrix = read_image_counts(record, path).total()
    boundary = read_image_boundary(record, path)
    stored = {"boundary_iou": record.boundary_iou, "boundary_miou": record.boundary_miou}
    counted: dict[str, object] = {"boundary_iou": {}, "boundary_miou": None}
    if boundary:
        counted = boundary_numbers(boundary.total(), list(record.iou), record.class_mean)
    return np.array_equal(matrix, np.array(record.confusion)) and counted == stored


def check_run(chain: Chain, run: str) -> None:
    """Check everything that a run is made of."""
    config = chain.runs[run].config
    results = Results(chain)
    chain.manifest(run)
    for split in config.cam_splits:
        chain.shards("masks", run, split)
    if config.refine.is_trained and config.data.val_list:
        chain.shards("refiner_predictions", run, "val")
    if config.retrain.enabled:
        chain.training("segmenter", run)
        chain.shards("predictions", run, config.segmented_split)
    if config.data.has_truth:
        results.records(run)
    results.tables(run)
    results.pictures(run)
    products = chain.runs.last_products(run)
    if f"results/{run}/index.html" in products:
        results.page(run)
    if f"results/{run}/gallery.json" in products:
        results.gallery(run)
