"""A paper's table as data: rows are chains, columns are numbers of them, published ones beside.

``workflow/tables/<name>.yaml`` is read into a `PaperTable`. It says which runs the table needs
(`table_runs`); `wsss.score.papers.render` fills the cells with what these runs scored.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from wsss.config.base import Section
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping, overlay, read_yaml
from wsss.config.runs import MANY, value_text

Product = Literal[
    "cam", "affinity", "seeds", "refined", "masks", "refiner", "predictions", "blob", "training"
]
Protocol = Literal["single", "multi", "single_crf", "multi_crf"]
Share = Literal["miou", "per_class", "report_mean", "precision", "recall", "pixel_accuracy"]
Cost = Literal[
    "trained_parameters", "parameters", "trained_share", "images_per_second", "peak_memory"
]
SWEPT_OVER = ("cam", "affinity", "refined", "blob")
"""Products that have a row at the best background threshold."""
_LONGEST = 60  # letters of changes in the name of a run; a longer one takes the row's label
_ROUNDING = 0.06  # percent: a published mean has one decimal, and so have those it is the mean of
_RESERVED = "the table sets it; a sweep is rows of their own"


def _reserved(changes: Mapping[str, Any]) -> list[str]:
    return [key for key in ("name", "seed", *MANY) if key in changes]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Column(Section):
    """One number of every row."""

    title: str = Field(description="Head of the column.")
    product: Annotated[tuple[Product, ...], BeforeValidator(_listed)] = Field(
        (),
        description=(
            "What is scored, as `wsss score` calls it, or training for what a training cost. "
            "Several: each row says which it takes. None: published numbers alone (a test server)."
        ),
    )
    split: str = Field("val", description="train or val; of a published column also test.")
    protocol: Protocol = Field("single", description="Of predictions: scales and CRF.")
    background: Literal["fixed", "best"] = Field(
        "fixed",
        description="Of class scores: the configured rule, or the threshold best on the truth.",
    )
    metric: Share | Cost = Field(
        "miou", description="per_class adds the IoU of each label below the table."
    )
    images: str = Field(
        "",
        description=(
            "Path of a list of ids: the number is taken over these images of the split alone."
        ),
    )

    def cross_checks(self) -> Iterator[tuple[str, str]]:
        """Wrong keys, each with what is wrong."""
        if ("training" in self.product) != (self.metric in get_args(Cost)) and self.product:
            yield "metric", f"{self.metric} is no number of {' or '.join(self.product)}"
        if self.background == "best":
            if not set(self.product) <= set(SWEPT_OVER):
                yield "background", f"only {', '.join(SWEPT_OVER)} have a best threshold"
            if self.images:
                yield "images", "rows at the best threshold have no counts of each image"
        if self.images and self.metric not in ("miou", "per_class"):
            yield "images", "a part of the images has miou and per_class alone"


class ClassValues(Section):
    """The IoU of each label, and what the source says their mean is."""

    mean: float = Field(ge=0, le=100)
    classes: list[Annotated[float, Field(ge=0, le=100)]] = Field(
        description="In the order of the table's classes."
    )


class Published(Section):
    """Numbers of one source."""

    values: dict[str, float | ClassValues] = Field(
        min_length=1, description="By column, in the unit of the table (percent)."
    )
    source: str = Field(min_length=1, description="Where they stand, and what is not known.")


class Row(Section):
    """A chain, run here or published or both."""

    name: str = Field(min_length=1)
    preset: str = Field(
        "", description="Name of a file in workflow/presets; empty: published numbers alone."
    )
    overlays: list[str] = Field(
        default_factory=list,
        description=(
            "Names of further presets laid over it; of one with runs also which: "
            "coco14-weakclip-segmenters:segmenter-deit-s."
        ),
    )
    changes: dict[str, Any] = Field(
        default_factory=dict, description="Laid over the presets, key by key."
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list,
        description="A run for each; the cell is their mean ± standard deviation.",
    )
    takes: dict[str, Product] = Field(
        default_factory=dict, description="By column, which of its products; of several it must."
    )
    published: list[Published] = Field(default_factory=list)
    note: str = ""

    @property
    def slug(self) -> str:
        """The name as part of a file's name: ``ExCEL, SVC + TSE`` → ``excel-svc-tse``."""
        name = re.sub(r"(?<=\w)\+", " plus", self.name.lower())  # WeCLIP+ is not WeCLIP
        return re.sub(r"[^a-z0-9]+", "-", name).strip("-")

    @property
    def labels(self) -> dict[str, int | None]:
        """The runs of the row with their seeds (None: the preset's); none without a preset."""
        if not self.preset:
            return {}
        return {f"{self.slug}_seed-{seed}": seed for seed in self.seeds} or {self.slug: None}

    def value(self, column: str) -> tuple[float | ClassValues, str] | None:
        """The published number of a column and its source, if there is one."""
        for published in self.published:
            if column in published.values:
                return published.values[column], published.source
        return None


class PaperTable(Section):
    """A table."""

    title: str = Field(min_length=1)
    note: str = ""
    classes: list[str] = Field(
        default_factory=list, description="Labels, background first; for per_class columns."
    )
    changes: dict[str, Any] = Field(
        default_factory=dict, description="Laid over every preset, under the changes of a row."
    )
    columns: dict[str, Column] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)

    @property
    def class_columns(self) -> list[str]:
        """Columns that show each label."""
        return [key for key, column in self.columns.items() if column.metric == "per_class"]

    @model_validator(mode="after")
    def _agrees(self) -> PaperTable:
        wrong = [
            f"columns.{key}.{field}: {what}"
            for key, column in self.columns.items()
            for field, what in column.cross_checks()
        ]
        wrong += [f"changes.{key}: {_RESERVED}" for key in _reserved(self.changes)]
        slugs = [row.slug for row in self.rows]
        for place, row in enumerate(self.rows):
            here = f"rows.{place} ({row.name})"
            wrong += [f"{here}.{what}" for what in self._row_contradictions(row)]
            if slugs.index(row.slug) < place:
                wrong.append(f"{here}.name: another row is called so")
        if wrong:
            raise ValueError("\n  ".join(wrong))
        return self

    def _row_contradictions(self, row: Row) -> Iterator[str]:
        if not row.preset:
            if not row.published:
                yield "published: a row without a preset needs numbers"
            if row.overlays or row.changes or row.seeds or row.takes:
                yield "preset: overlays, changes, seeds and takes need one"
        for key in _reserved(row.changes):
            yield f"changes.{key}: {_RESERVED}"
        if len(set(row.seeds)) != len(row.seeds):
            yield "seeds: one comes twice"
        for key, product in row.takes.items():
            if key not in self.columns:
                yield f"takes.{key}: {_unknown(key, list(self.columns), 'column')}"
            elif product not in self.columns[key].product:
                yield f"takes.{key}: the column has {' or '.join(self.columns[key].product)}"
        for key, column in self.columns.items():
            if row.preset and len(column.product) > 1 and key not in row.takes:
                yield f"takes.{key}: say which, {' or '.join(column.product)}"
        seen: set[str] = set()
        for number, published in enumerate(row.published):
            for key, value in published.values.items():
                where = f"published.{number}.values.{key}"
                if key not in self.columns:
                    yield f"{where}: {_unknown(key, list(self.columns), 'column')}"
                else:
                    yield from (f"{where}: {what}" for what in self._value(key, value))
                if key in seen:
                    yield f"{where}: comes twice"
                seen.add(key)

    def _value(self, key: str, value: float | ClassValues) -> Iterator[str]:
        per_class = self.columns[key].metric == "per_class"
        if not isinstance(value, ClassValues):
            if per_class:
                yield "give mean and classes, as the column shows each label"
            elif self.columns[key].metric in get_args(Share) and not 0 <= value <= 100:
                yield f"{value} is no percentage"
            return
        if not per_class:
            yield "the column shows one number, not one a label"
            return
        if len(value.classes) != len(self.classes):
            yield f"{len(value.classes)} numbers for {len(self.classes)} classes"
            return
        mean = sum(value.classes) / len(value.classes)
        if abs(mean - value.mean) > _ROUNDING:
            yield f"the mean of the classes is {mean:.2f}, not {value.mean}"


def load_table(path: Path) -> PaperTable:
    """Read a table.

    Raises:
        ConfigError: naming the file and each wrong key.
    """
    content = _read(path)
    try:
        return PaperTable.model_validate(content)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError(f"{path}: not a valid table\n  " + "\n  ".join(lines)) from None


def table_runs(path: Path, presets: Path | None = None) -> dict[str, dict[str, Any]]:
    """The runs that a table needs.

    Args:
        path: the table.
        presets: folder of the presets; default: ``presets`` beside the table's folder.

    Returns:
        By label (the row's slug, with ``_seed-<n>`` where the row names seeds) what is to be laid
        over config.yaml: the preset, the changes of the table and of the row, the seed, and as name
        that of the preset, followed by what is changed: ``voc12-weakclip.prompts-4``. So tables
        that need the same run name the same one.

    Raises:
        ConfigError: the table, a preset or what the two give is not valid.
    """
    presets = path.parent.parent / "presets" if presets is None else presets
    table = load_table(path)
    found: dict[str, dict[str, Any]] = {}
    for row in table.rows:
        for label, seed in row.labels.items():
            where = f"{path}, row {row.name!r}"
            mapping = dict(_preset(presets, row.preset, where))
            name = mapping["name"]
            for file in row.overlays:
                mapping = overlay(mapping, _preset(presets, file, where))
            changes = overlay(table.changes, row.changes)
            if seed is not None:
                changes = overlay(changes, {"seed": seed})
            above = [value_text(file.rpartition(":")[2]) for file in row.overlays]
            own = {"name": _run_name(name, above, changes, f"{path.stem}-{label}")}
            found[label] = overlay(overlay(mapping, changes), own)
            from_mapping(found[label], where=where)
    return found


def _run_name(preset: str, above: Sequence[str], changes: Mapping[str, Any], label: str) -> str:
    changed = sorted(f"{key}-{value_text(value)}" for key, value in _leaves(changes))
    words = "_".join([*above, *changed])
    if not words:
        return preset
    return f"{preset}.{words if len(words) <= _LONGEST else label}"


def _leaves(changes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in changes.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield key, value


def row_of(table: PaperTable, label: str) -> Row:
    """The row that a label means: that of a run, a slug or the name itself.

    Raises:
        ConfigError: there is none.
    """
    for row in table.rows:
        if label in (row.name, row.slug, *row.labels):
            return row
    known = [name for row in table.rows for name in (*row.labels, row.slug)]
    raise ConfigError(f"{table.title}: {_unknown(label, list(dict.fromkeys(known)), 'row')}")


def _preset(folder: Path, name: str, where: str) -> Mapping[str, Any]:
    """A preset, or with ``file:run`` what it is for one of its runs."""
    file, _, run = name.partition(":")
    path = folder / f"{file}.yaml"
    if not path.is_file():
        there = sorted(other.stem for other in folder.glob("*.yaml"))
        raise ConfigError(f"{where}: preset: {_unknown(file, there, 'preset')}")
    mapping: Mapping[str, Any] = _read(path)
    runs = mapping.get("runs", {})
    if run:
        if run not in runs:
            raise ConfigError(f"{where}: preset: {_unknown(run, list(runs), f'run of {file}')}")
        shared = {key: value for key, value in mapping.items() if key not in MANY}
        return overlay(shared, runs[run])
    if several := set(MANY) & set(mapping):
        hint = f"name one of them, {file}:{next(iter(runs))}" if runs else "name a single one"
        raise ConfigError(
            f"{where}: preset: {file} is several runs ({', '.join(several)}); {hint}, and lay the "
            "rest over it with changes"
        )
    return mapping


def _read(path: Path) -> Any:
    """YAML; presets are needed by many rows, and the workflow reads all tables at every start."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    return _read_once(path, found.st_mtime_ns, found.st_size)


@functools.cache
def _read_once(path: Path, _changed: int, _size: int) -> Any:
    return read_yaml(path)


def _unknown(name: str, known: list[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"{name!r} is no {what}; {hint}"


def _explain(item: Any) -> str:
    # A union's branches (float, ClassValues) are no keys of the file.
    parts = [str(part) for part in item["loc"] if part not in ("float", "ClassValues")]
    place = ".".join(parts)
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        models = (PaperTable, Column, Row, Published, ClassValues)
        known = sorted({name for model in models for name in model.model_fields})
        near = difflib.get_close_matches(parts[-1], known, n=1)
        return f"{place}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    found = "" if item["type"] in {"missing", "value_error"} else f" (found {item['input']!r})"
    return f"{place}: {message}{found}" if place else message
