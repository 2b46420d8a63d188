"""The runs of a workflow, and which of them makes a product that several of them use.

A configuration with a `sweep`, named `runs` or a `matrix` stands for several runs. Products
that are the same in several runs, from the manifest to the predictions, are made once, by the first
of these runs: their **producer**. A matrix has producers of its own, so that shared products do not
depend on the order of the entries: ``<name>/<cams>`` for CAMs, ``<name>/<cams>/<refine>`` for
pseudo masks.

Tables of papers (``workflow/tables``) need runs of presets, unchanged or with an overlay:
``<preset>`` and ``<preset>/<change>``, the same in every table. They share products in the same
way.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.config.runs import expand_runs, run_name
from wsss.pipeline.before_start import check_before_start
from wsss.pipeline.products import PRODUCTS, RUN_TABLES, SCORED, table_paths
from wsss.pipeline.stages import stage_sections
from wsss.score.papers.runs import table_configs
from wsss.score.papers.table import load_table, row_of
from wsss.score.product import PRODUCTS as RECORDS
from wsss.score.product import ProductName

_TAUGHT_BY_TRUTH = frozenset({"refine", "segmenter"})
"""In the supervised upper bound these are made from ``truth_masks`` alone."""
_COSTS = "training"
_NO_RESULT = frozenset({"compute", "pictures", "sweep", "runs", "matrix"})
"""Sections that do not tell two runs apart."""
_CAMS = frozenset({"manifest", "truth_masks", "noisy_tags", "cams"})
_MASKS = frozenset(PRODUCTS) - {"segmenter", "predictions"}
_FOLDERS = frozenset({
    *PRODUCTS, "scores", "tables", "pictures", "logs", "benchmarks", "page", "gallery",
    "submission", "test", "index.html", "gallery.json", "report.html",
})  # fmt: skip
_ABOVE_RUNS = frozenset({"cache", "logs", "tables"})


@dataclass(frozen=True)
class Run:
    """One run."""

    config: Config
    produces: frozenset[str] = frozenset(PRODUCTS)
    """Products that it may make for other runs."""
    final: bool = True
    """Whether the configuration asks for it; else it only makes shared products."""


class Runs(Mapping[str, Run]):
    """The runs of one configuration by their folders below ``results``.

    Args:
        mapping: see `wsss.config.load.from_mapping`.
        where: where it came from, for messages.
        tables: files of tables whose runs belong to it as well; they take the section ``compute``.
            One that is not valid is in `invalid_tables` and has no runs.

    Raises:
        ConfigError: see `wsss.config.runs.expand_runs` and `check_before_start`; or the folder of
            a run would lie in that of another.
    """

    def __init__(
        self, mapping: Mapping[str, Any], *, where: str = "config", tables: Sequence[Path] = ()
    ) -> None:
        base = from_mapping(mapping, where=where)
        configs, axes = expand_runs(mapping, where=where), base.matrix.axes
        for label, config in configs.items():
            check_before_start(config, f"{where}, run {label}" if label else where)
        self.name = base.name
        self._producer = functools.cache(self._find_producer)
        self._key = functools.cache(self._make_key)
        names = sorted({part for label in configs for part in label.split("/")})
        wrong = [name for name in names if name.casefold() in _FOLDERS]
        if wrong or base.name.casefold() in _ABOVE_RUNS:
            raise ConfigError(
                f"{where}: a run cannot be called {(*wrong, base.name)[0]!r}, which is a file or "
                "folder of results; choose another name"
            )
        self._runs = {base.name: Run(base)}
        if "" not in configs:
            self._add_many(configs, axes)
        self.tables: dict[str, dict[str, str]] = {}
        """Of each table the folders of its runs, by the label of the row."""
        self._taken: dict[str, str] = {}
        self.invalid_tables: dict[str, str] = {}
        """What is wrong with each such table, by its name."""
        for path in tables:
            try:
                self._add_table(path, table_configs(path, mapping.get("compute", {})))
            except ConfigError as error:
                self.invalid_tables[path.stem] = str(error)

    def _add_many(self, configs: Mapping[str, Config], axes: Sequence[str]) -> None:
        """The runs of a sweep, named runs, or those of a matrix with their shared parents."""
        base = self._runs[self.name].config
        produces = _MASKS if axes == ["retrain"] else _CAMS
        self._runs = {self.name: Run(base, produces, final=False)}
        for depth in range(1, len(axes)):
            produces = _MASKS if axes[depth] == "retrain" else _CAMS
            for label, config in configs.items():
                shared = "/".join(label.split("/")[:depth])
                named = config.model_copy(update={"name": run_name(self.name, shared)})
                self._runs.setdefault(f"{self.name}/{shared}", Run(named, produces, final=False))
        self._runs |= {f"{self.name}/{label}": Run(config) for label, config in configs.items()}

    def _add_table(self, path: Path, configs: Mapping[str, Config]) -> None:
        self.tables[path.stem] = {}
        for label, config in configs.items():
            name = config.name.replace(".", "/", 1)
            run = self._runs.setdefault(name, Run(config, final=False))
            self.tables[path.stem][label] = name
            if _results(run.config) != _results(config):
                self._taken[path.stem] = (
                    f"{path}: needs the run results/{name} as its preset says, which is configured "
                    "differently here; give the run that you configure another name"
                )

    def __getitem__(self, name: str) -> Run:
        return self._runs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def folder(self, product: str, name: str) -> str:
        """The folder from which a run reads a product: its own, or that of the producer."""
        return f"results/{self.producer(product, name)}/{product}"

    def manifest_folder(self, name: str) -> str:
        """The folder of the manifest that a run uses: with the given tags, or with others."""
        noisy = self[name].config.tag_noise.enabled
        return self.folder("noisy_tags" if noisy else "manifest", name)

    def records(self, name: str) -> dict[tuple[ProductName, str], str]:
        """The files of records of a run by what is scored and split, in the order of its table."""
        config = self[name].config
        scored: list[tuple[ProductName, str]] = []
        trained = config.refine.is_trained
        for split in config.cam_splits:
            scored += [("blob", split), ("cam", split)]
            if config.cams.has_affinity:
                scored.append(("affinity", split))
            if config.needs_seeds and split == "train":
                scored.append(("seeds", split))
            if trained:
                scored.append(("refiner_scores", split))
            scored.append(("masks", split))
        if trained and config.data.val_list:
            scored.append(("refiner_prediction", "val"))
        if config.retrain.enabled:
            scored.append(("segmenter", config.segmented_split))
        return {
            (product, split): f"results/{self.producer(SCORED[product], name)}"
            f"/scores/{RECORDS[product].file}.{split}.json"
            for product, split in scored
        }

    def last_products(self, name: str) -> list[str]:
        """The files that a run ends in: pictures and tables."""
        config, base = self[name].config, f"results/{name}"
        splits = config.cam_splits
        products: list[str] = []
        if config.data.has_truth or not splits or config.retrain.enabled:
            products += [f"{base}/index.html"]
            products += [f"{base}/pictures/{split}.png" for split in splits]
        if config.data.kind == "folder" and splits:
            products.append(f"{base}/gallery.json")
        if config.data.has_truth:
            for table in RUN_TABLES:
                products += table_paths(name, table)
            products.append(f"{base}/pictures/class_iou.png")
        if config.refine.trains:
            products += [f"{base}/pictures/refiner_loss.png", *table_paths(name, "efficiency")]
        if config.retrain.enabled:
            products += [f"{base}/pictures/segmenter_loss.png"]
        predicts = config.refine.is_trained or config.retrain.enabled
        if predicts and config.data.val_list and "val" not in splits:
            products += [f"{base}/pictures/val.png"]
        return products

    def gallery_folder(self, name: str) -> Path:
        """Where masks, overlays and gallery of a run of photos go."""
        folder = self[name].config.pictures.folder
        if folder and self.final == [name]:  # several runs would share it
            return expand_path(folder)
        return Path(f"results/{name}/gallery")

    @property
    def overviews(self) -> list[str]:
        """Table and chart of the runs of the configuration, where there are several."""
        noises = [self[name].config.tag_noise for name in self.final if name != self.name]
        if not noises or not self[self.name].config.data.has_truth:
            return []
        random = [noise for noise in noises if noise.source == "given"]
        removed = {noise.dropped for noise in random if not noise.added}
        added = {noise.added for noise in random if not noise.dropped}
        varies = max(len(removed), len(added)) > 1
        charts = [f"results/{self.name}/pictures/tag_noise.png"] if varies else []
        return [*table_paths(self.name, "sweep"), *charts]

    def shown(self, name: str, split: str) -> dict[str, list[str]]:
        """The shards behind a contact sheet, by product."""
        config = self[name].config
        has_cams, val = split in config.cam_splits, split == "val"
        is_shown = {
            "cams": has_cams,
            "seeds": config.needs_seeds and split == "train",
            "masks": has_cams,
            "refiner_predictions": config.refine.is_trained and val,
            "predictions": config.retrain.enabled and split == config.segmented_split,
        }
        return {p: self.shards(p, name, split) for p, shows in is_shown.items() if shows}

    def on_page(self, name: str, split: str) -> list[str]:
        """The products that the result page shows of a split."""
        config = self[name].config
        scored = config.refine.is_trained and split in config.cam_splits
        return [*self.shown(name, split), *(["scores_grid"] if scored else [])]

    def shards(self, product: str, name: str, split: str) -> list[str]:
        """The shards of a split of a product."""
        count, folder = self[name].config.shards, self.folder(product, name)
        return [f"{folder}/{split}/{part}-of-{count}.h5" for part in range(1, count + 1)]

    def table_files(self, table: Path) -> dict[str, list[str]]:
        """The files behind the cells of a table, by the label of the row.

        Raises:
            ConfigError: a run of that name is configured differently.
        """
        if message := self._taken.get(table.stem):
            raise ConfigError(message)
        content, files_by_label = load_table(table), {}
        for label, name in self.tables[table.stem].items():
            row, records = row_of(content, label), self.records(name)
            files = []
            for key, column in content.columns.items():
                product = row.product(key, column)
                if product == _COSTS and self[name].config.refine.trains:
                    files.append(f"{self.folder('refine', name)}/efficiency.json")
                files += [records[w] for w in records if w == (product, column.split)]
            files_by_label[label] = list(dict.fromkeys(files))
        return files_by_label

    @property
    def final(self) -> list[str]:
        """The runs that the configuration asks for."""
        return [name for name, run in self.items() if run.final]

    def producer(self, product: str, name: str) -> str:
        """The run whose folder holds the product that a run uses."""
        return self._producer(product, name)

    def _find_producer(self, product: str, name: str) -> str:
        if product == "corrected_masks":  # quickly made; no run depends on another for it
            return name
        key = self._key(product, name)
        producers = (other for other in self._family(name) if product in self[other].produces)
        return next((other for other in producers if self._key(product, other) == key), name)

    def _family(self, name: str) -> list[str]:
        """Runs below the same folder: those that are configured first, the others by name."""
        first = name.split("/")[0]
        family = [other for other in self if other.split("/")[0] == first]
        tables = {other for runs in self.tables.values() for other in runs.values()}
        return [o for o in family if o not in tables] + sorted(o for o in family if o in tables)

    def _make_key(self, product: str, name: str) -> tuple[str, ...]:
        """Everything that decides the content of a product; equal keys, equal content."""
        config, product_kind = self[name].config, PRODUCTS[product]
        skipped = () if config.refine.is_trained else ("refine", "scores_grid")
        if product == "noisy_tags" and not config.tag_noise.enabled:
            return self._key("manifest", name)
        if product in skipped or (product == "seeds" and not config.needs_seeds):
            return self._key("cams", name)
        supervised = config.supervision == "masks" and product in _TAUGHT_BY_TRUTH
        before = ("truth_masks",) if supervised else product_kind.inputs
        inputs = (self._key(other, name) for other in before)
        values = (stage_sections(product_kind.stage, config), str(config.shards))
        return tuple(dict.fromkeys((*(entry for key in inputs for entry in key), *values)))


def _results(config: Config) -> dict[str, Any]:
    """What tells two runs apart; of the section ``compute`` the precision alone."""
    values = config.model_dump(mode="json", exclude=set(_NO_RESULT))
    return values | {"precision": config.compute.precision}
