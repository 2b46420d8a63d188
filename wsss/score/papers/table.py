"""A paper's table as data: rows are chains, columns are measured and published numbers.

``workflow/tables/<name>.yaml`` is read into a `PaperTable`. It says which runs the table needs
(`wsss.score.papers.runs`); `wsss.score.papers.render` fills the cells with their scores.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from wsss.config.base import Section
from wsss.config.errors import ConfigError, explain_value
from wsss.config.load import read_cached
from wsss.config.runs import MANY
from wsss.score.papers.published import ClassValues, Published, Supervision
from wsss.score.product import HAS_THRESHOLD, ProductName, Protocol

Scored = Literal[ProductName, "training"]
Share = Literal[
    "miou", "per_class", "report_mean", "precision", "recall", "pixel_accuracy", "boundary_miou",
    "false_positive", "false_negative",
]  # fmt: skip
Cost = Literal[
    "trained_parameters", "parameters", "trained_share", "images_per_second", "peak_memory"
]
_ROUNDING = 0.06  # percent: a published mean has one decimal, and so have those it is the mean of
_RESERVED = "the table sets it; a sweep is rows of their own"


def _reserved(changes: Mapping[str, Any]) -> list[str]:
    return [key for key in ("name", "seed", *MANY) if key in changes]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Column(Section):
    """One number of every row."""

    title: str = Field(description="Head of the column.")
    product: Annotated[tuple[Scored, ...], BeforeValidator(_listed)] = Field(
        (),
        description=(
            "What is scored, as `wsss score` calls it, or training for the cost of a training. "
            "Several: each row takes one. None: published numbers alone (a test server)."
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

    @property
    def predicts(self) -> bool:
        """Whether it shows predictions, which follow a protocol of scales and CRF."""
        return bool({"refiner_prediction", "segmenter"} & set(self.product))

    def cross_checks(self) -> Iterator[tuple[str, str]]:
        """Wrong keys, each with what is wrong."""
        if ("training" in self.product) != (self.metric in get_args(Cost)) and self.product:
            yield "metric", f"{self.metric} is no number of {' or '.join(self.product)}"
        if self.background == "best":
            if not set(self.product) <= set(HAS_THRESHOLD):
                yield "background", f"only {', '.join(HAS_THRESHOLD)} have a best threshold"
            if self.images:
                yield "images", "rows at the best threshold have no counts per image"
        if self.images and self.metric not in ("miou", "per_class"):
            yield "images", "a part of the images has miou and per_class alone"


class Row(Section):
    """A chain, run here or published or both."""

    name: str = Field(min_length=1)
    group: str = Field("", description="Rows of a group stand together and compare.")
    backbone: str = Field("", description="Of the network that is scored.")
    supervision: Supervision = Field("", description="F, or I and parts such as +S, +CLIP, +SAM.")
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
    takes: dict[str, Scored] = Field(
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

    def product(self, key: str, column: Column) -> str | None:
        """What the row shows in a column; None: published numbers alone."""
        return self.takes.get(key) or next(iter(column.product), None)

    def published_mean(self, key: str) -> float | None:
        """The published number of a column; of labels, their mean."""
        value = published[0] if (published := self.value(key)) else None
        return value.mean if isinstance(value, ClassValues) else value

    def value(self, column: str) -> tuple[float | ClassValues, Published] | None:
        """The published number of a column and where it stands, if there is one."""
        for published in self.published:
            if column in published.values:
                return published.values[column], published
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
        groups = [row.group for row in self.rows]
        runs = [
            name for name, before in zip(groups, [None, *groups], strict=False) if name != before
        ]
        wrong += [f"rows: {name!r} is scattered; put its rows together"
                  for name in dict.fromkeys(runs) if runs.count(name) > 1]  # fmt: skip
        for name in dict.fromkeys(groups):
            if len({row.supervision == "F" for row in self.rows if row.group == name}) > 1:
                wrong.append(f"rows: {name!r} mixes supervision F with other; give F a group")
        slugs = [row.slug for row in self.rows]
        for index, row in enumerate(self.rows):
            here = f"rows.{index} ({row.name})"
            wrong += [f"{here}.{what}" for what in self._row_cross_checks(row)]
            if slugs.index(row.slug) < index:
                wrong.append(f"{here}.name: another row is called so")
        if wrong:
            raise ValueError("\n  ".join(wrong))
        return self

    def _row_cross_checks(self, row: Row) -> Iterator[str]:
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
                yield f"takes.{key}: {unknown_name(key, list(self.columns), 'column')}"
            elif product not in self.columns[key].product:
                yield f"takes.{key}: the column has {' or '.join(self.columns[key].product)}"
        for key, column in self.columns.items():
            if row.preset and len(column.product) > 1 and key not in row.takes:
                yield f"takes.{key}: say which, {' or '.join(column.product)}"
        seen: set[str] = set()
        for index, published in enumerate(row.published):
            for key, value in published.values.items():
                where = f"published.{index}.values.{key}"
                if key not in self.columns:
                    yield f"{where}: {unknown_name(key, list(self.columns), 'column')}"
                else:
                    yield from (f"{where}: {what}" for what in self._value(key, value))
                    column = self.columns[key]
                    if column.predicts and published.follows(column.protocol) is False:
                        yield (
                            f"{where}: is at {published.protocol}, the column's protocol is "
                            f"{column.protocol}"
                        )
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
            yield "the column shows one number, not one per label"
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
    content = read_cached(path)
    try:
        return PaperTable.model_validate(content)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError(f"{path}: not a valid table\n  " + "\n  ".join(lines)) from None


def row_of(table: PaperTable, label: str) -> Row:
    """The row that a label means: that of a run, a slug or the name itself.

    Raises:
        ConfigError: there is none.
    """
    for row in table.rows:
        if label in (row.name, row.slug, *row.labels):
            return row
    labels = dict.fromkeys(name for row in table.rows for name in (*row.labels, row.slug))
    raise ConfigError(f"{table.title}: {unknown_name(label, list(labels), 'row')}")


def unknown_name(name: str, valid: list[str], what: str) -> str:
    """What is wrong with a name, and a near one that is valid."""
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(valid)}"
    return f"{name!r} is no {what}; {hint}"


def _explain(item: Any) -> str:
    # A union's branches (float, ClassValues) are no keys of the file.
    parts = [str(part) for part in item["loc"] if part not in ("float", "ClassValues")]
    key = ".".join(parts)
    message = explain_value(item)
    if item["type"] == "extra_forbidden":
        models = (PaperTable, Column, Row, Published, ClassValues)
        valid = sorted({name for model in models for name in model.model_fields})
        near = difflib.get_close_matches(parts[-1], valid, n=1)
        return f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    return f"{key}: {message}" if key else message
