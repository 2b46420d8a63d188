"""Charts: the loss of a training, and the IoU of each class."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from wsss.artifacts.errors import ArtifactError
from wsss.score.figures.chart import COLOURS, plain_axes, save_chart
from wsss.score.figures.fonts import class_name, drawable, families
from wsss.score.record import Record, read_records
from wsss.score.tables.rows import row_name

_SMOOTH = 0.05  # share of the steps that the smoothed curve looks back
_INCHES_PER_BAR = 0.085
_TALLEST = 80.0  # inches; keeps the picture below what image libraries take


def loss_curve(log: Path, out: Path, title: str = "") -> None:
    """Draw loss (raw and smoothed) and learning rate over the steps.

    Args:
        log: CSV with the columns ``step``, ``loss`` and, perhaps, ``lr``.
        out: picture to write, ``.png`` or ``.svg``.

    Raises:
        ArtifactError: the log is missing, empty or has other columns.
    """
    columns = _read_log(log)
    step, loss, rate = columns["step"], columns["loss"], columns.get("lr")
    figure = Figure(figsize=(7.2, 4.4 if rate is not None else 3.2), layout="constrained")
    ratios = [3, 1] if rate is not None else [1]
    axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
    top: Axes = axes[0]
    if title:
        top.set_title(title, loc="left", fontsize=10, fontweight="bold", parse_math=False)
    window = max(1, round(_SMOOTH * len(step)))
    alpha, width = (0.3, 0.8) if window > 1 else (1.0, 1.8)
    top.plot(step, loss, color=COLOURS[0], alpha=alpha, linewidth=width, label="each step")
    if window > 1:
        label = f"mean of the last {window} steps"
        top.plot(step, smoothed(loss, window), color=COLOURS[0], linewidth=1.8, label=label)
    top.set_ylabel("loss")
    top.set_ylim(bottom=0, top=_ceiling(loss))
    top.legend(frameon=False)
    if rate is not None:
        axes[1].plot(step, rate, color=COLOURS[1], linewidth=1.5)
        axes[1].set_ylabel("learning rate")
        axes[1].set_ylim(bottom=0)
        axes[1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes[-1].set_xlabel("step")
    axes[-1].set_xlim(0, max(step[-1], 1))
    for axis in axes:
        plain_axes(axis)
    save_chart(figure, out, [log])


def class_chart(records: Sequence[Path], out: Path) -> None:
    """Draw the IoU of each label as horizontal bars, one colour per row; a panel per split.

    CAM rows at the threshold that is best on the same truth, and labels that have an IoU in no row,
    are left out.

    Args:
        records: JSON files of the score stage.
        out: picture to write, ``.png`` or ``.svg``.

    Raises:
        ArtifactError: a file is missing or holds no records.
    """
    shown = [record for record in read_records(records) if not record.at_best_threshold]
    if not shown:
        raise ArtifactError(f"{', '.join(map(str, records))}: no records to draw; run `wsss score`")
    panels = []
    for split in dict.fromkeys(record.split for record in shown):
        rows = [record for record in shown if record.split == split]
        names = {id(record): _series_name(record, rows) for record in rows}
        series = {names[id(record)]: record.iou for record in rows}
        means = {names[id(record)]: record.miou for record in rows}
        panels.append(Panel(split, series, means, f"{split}, {rows[0].images} images"))
    draw_bars(panels, out, records)


def _series_name(record: Record, records: Sequence[Record]) -> str:
    """The row of a record; with its run and its truth where the others have another one."""
    parts = [row_name(record)]
    if len({other.run for other in records}) > 1:
        parts.append(record.run)
    if len({other.truth_rule for other in records}) > 1:
        parts.append(f"truth {record.truth_rule}")
    return ", ".join(parts)


@dataclass(frozen=True)
class Panel:
    """Bars side by side: the IoU of each label, as shares, by series."""

    title: str
    series: Mapping[str, Mapping[str, float | None]]
    means: Mapping[str, float | None] = field(default_factory=dict)
    """The number of a series in the legend; default: the mean of its bars."""
    head: str = ""
    """Above the panel; default: the title."""

    def mean(self, name: str) -> float | None:
        """The mean IoU of a series."""
        if name in self.means:
            return self.means[name]
        values = [value for value in self.series[name].values() if value is not None]
        return sum(values) / len(values) if values else None


def draw_bars(panels: Sequence[Panel], out: Path, files: Sequence[Path] = ()) -> None:
    """Draw horizontal bars, panel by panel; a series has the same colour in all of them.

    Labels that have an IoU in no series are left out.

    Args:
        panels: from left to right.
        out: picture to write, ``.png`` or ``.svg``.
        files: behind the bars, for the provenance.
    """
    rows = list(dict.fromkeys(name for panel in panels for name in panel.series))
    every = [values for panel in panels for values in panel.series.values()]
    names = list(dict.fromkeys(name for values in every for name in values))
    labels = {name: _cut(class_name(name, label), 36) for label, name in enumerate(names)}
    names = [name for name in names if any(values.get(name) is not None for values in every)]
    heads = [_cut(drawable(panel.head or panel.title), 48) for panel in panels]
    legend = [drawable(_mean_text(row, panels)) for row in rows]
    with matplotlib.rc_context({"font.family": families([*labels.values(), *heads, *legend])}):
        figure = _bar_figure(panels, rows, names, [labels[name] for name in names], heads, legend)
        save_chart(figure, out, files)


def _cut(text: str, letters: int) -> str:
    """A text that leaves room for the bars."""
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _bar_figure(
    panels: Sequence[Panel],
    rows: Sequence[str],
    names: Sequence[str],
    labels: Sequence[str],
    heads: Sequence[str],
    legend: Sequence[str],
) -> Figure:
    """The bars of ``names``, with the texts beside, above and below them."""
    most = max(len(panel.series) for panel in panels)
    height = 1.2 + 0.2 * len(rows) + len(names) * (_INCHES_PER_BAR * most + 0.1)
    size = (max(4.0 * len(panels) + 1.0, 6.0), min(height, _TALLEST))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel, head in zip(axes, panels, heads, strict=True):
        _bars(axis, panel.series, rows, names)
        axis.set_title(head, loc="left", fontsize=10, fontweight="bold", parse_math=False)
    axes[0].set_yticks(range(len(names)), labels, parse_math=False)
    axes[0].set_ylim(len(names) - 0.45, -0.55)
    colours = [Patch(label=text, **_style(index)) for index, text in enumerate(legend)]
    texts = figure.legend(handles=colours, loc="outside lower left", frameon=False, fontsize=9)
    for text in texts.get_texts():
        text.set_parse_math(False)
    return figure


def smoothed(values: Float64[np.ndarray, " n"], window: int) -> Float64[np.ndarray, " n"]:
    """Mean of each value and those before it, ``window`` of them, fewer at the start."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return np.asarray((total[end] - total[start]) / (end - start), np.float64)


def _bars(
    axis: Axes,
    series: Mapping[str, Mapping[str, float | None]],
    rows: Sequence[str],
    names: Sequence[str],
) -> None:
    """One panel's bars; a row has the same colour in every panel."""
    thickness = 0.84 / len(series)
    for index, (row, iou) in enumerate(series.items()):
        values = [100 * (iou.get(name) or 0.0) for name in names]
        centre = np.arange(len(names)) - 0.42 + thickness * (index + 0.5)
        axis.barh(centre, values, 0.9 * thickness, **_style(rows.index(row)))
    axis.set_xlim(0, 100)
    axis.set_xlabel("IoU (%)")
    axis.tick_params(axis="y", length=0)
    plain_axes(axis)
    axis.grid(visible=False, axis="y")


def _style(index: int) -> dict[str, Any]:
    hatch = "" if index < len(COLOURS) else "////"
    colour = COLOURS[index % len(COLOURS)]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}


def _mean_text(row: str, panels: Sequence[Panel]) -> str:
    means = {panel.title: panel.mean(row) for panel in panels if row in panel.series}
    texts = [f"{title} {100 * mean:.1f}" for title, mean in means.items() if mean is not None]
    return f"{row}: mIoU {', '.join(texts)}" if texts else row


def _read_log(log: Path) -> dict[str, Float64[np.ndarray, " n"]]:
    try:
        with log.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise ArtifactError(f"{log}: no such log; run the training first") from None
    if not rows or not {"step", "loss"} <= rows[0].keys():
        columns = list(rows[0]) if rows else "no rows"
        raise ArtifactError(f"{log}: found {columns}, expected rows with the columns step and loss")
    names = [name for name in ("step", "loss", "lr") if name in rows[0]]
    try:
        return {name: np.array([float(row[name]) for row in rows]) for name in names}
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{log}: a cell is no number ({error}); train again") from None


def _ceiling(loss: Float64[np.ndarray, " n"]) -> float | None:
    """A rare spike must not flatten the curve; None where nothing is finite."""
    finite = loss[np.isfinite(loss)]
    return float(1.1 * np.quantile(finite, 0.995)) or None if finite.size else None
