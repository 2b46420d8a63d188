"""Lines of mIoU: over the share of wrong tags, and over the steps of a training."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wsss.artifacts.errors import ArtifactError
from wsss.score.figures.chart import COLOURS, plain_axes, save_chart
from wsss.score.figures.fonts import drawable, families
from wsss.score.record import Record, read_records
from wsss.score.tables.rows import row_name

_KINDS: dict[Literal["dropped", "added"], str] = {
    "dropped": "tags removed (%)",
    "added": "images with a wrong tag added (%)",
}
_DASHES = (4, 4)
_MARGIN = 0.05  # of the height, above and below the lines


@dataclass(frozen=True)
class LinePanel:
    """Lines over one axis."""

    x_label: str
    y_label: str
    series: Mapping[str, Mapping[float, Sequence[float]]]
    """By name: the values at each x; of several the mean is drawn, with their deviation."""
    levels: Mapping[str, float] = field(default_factory=dict)
    """By name of a series: a dashed line at this value."""


def noise_chart(records: Sequence[Path], out: Path) -> None:
    """Draw the mIoU of each product over the share of tags removed, and of wrong ones added.

    A panel per kind of noise; dashed lines are runs with CLIP's tags. Predictions stand at one
    scale without CRF; the blob and thresholds that were chosen on the truth are left out, and so
    are runs with both kinds of noise, which a table shows.

    Args:
        records: JSON files of the score stage, of all runs.
        out: picture to write, ``.png`` or ``.svg``.

    Raises:
        ArtifactError: a file is damaged, or the tags of no run were changed.
    """
    shown = [r for r in read_records(records) if _is_shown(r)]
    panels = list(noise_panels(shown))
    if not panels:
        files = ", ".join(map(str, records))
        raise ArtifactError(f"{files}: no run has removed or added tags; set tag_noise and run it")
    draw_lines(panels, out, records)


def _is_shown(record: Record) -> bool:
    is_plain = record.protocol == "single" and not record.at_best_threshold
    return is_plain and record.product != "blob" and record.miou is not None


def noise_panels(records: Sequence[Record]) -> Iterator[LinePanel]:
    for kind, label in _KINDS.items():
        other = next(name for name in _KINDS if name != kind)
        series: dict[str, dict[float, list[float]]] = {}
        levels: dict[str, list[float]] = {}
        for record in records:
            noise = record.tag_quality.noise if record.tag_quality else {}
            name, miou = f"{row_name(record)}, {record.split}", 100 * (record.miou or 0.0)
            if noise.get(other):
                continue
            if noise.get("source") != "clip":
                x = 100 * noise.get(kind, 0.0)
                series.setdefault(name, {}).setdefault(x, []).append(miou)
            elif not noise[kind]:
                levels.setdefault(name, []).append(miou)
        if any(len(values) > 1 for values in series.values()):
            means = {name: statistics.mean(values) for name, values in levels.items()}
            yield LinePanel(label, "mIoU (%)", series, means)


def label_curve(table: Path, out: Path) -> None:
    """Draw the quality of a refiner's labels over the steps of its training.

    Args:
        table: CSV of `wsss.score.label_quality`.
        out: picture to write, ``.png`` or ``.svg``.
    """
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    panels = []
    for name, label in (("miou", "mIoU of the labels (%)"), ("labelled", "pixels labelled (%)")):
        line = {float(row["step"]): [100 * float(row[name])] for row in rows if row[name]}
        panels.append(LinePanel("training step", label, {"labels that supervise": line}))
    draw_lines([panel for panel in panels if any(panel.series.values())], out, [table])


def draw_lines(panels: Sequence[LinePanel], out: Path, files: Sequence[Path]) -> None:
    """Draw panels side by side; a series has the same colour in all of them.

    Args:
        panels: from left to right; those with the same ``y_label`` share their range.
        out: picture to write, ``.png`` or ``.svg``.
        files: behind the lines, for the provenance.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    legend = [drawable(name) for name in names]
    with matplotlib.rc_context({"font.family": families(legend)}):
        figure = Figure(figsize=(1.0 + 4.2 * len(panels), 3.6), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _lines(axis, panel, names)
            alike = [other for other in panels if other.y_label == panel.y_label]
            axis.set_ylim(*_range(alike))
        handles = [Line2D([], [], label=text, **_style(i)) for i, text in enumerate(legend)]
        if any(panel.levels for panel in panels):
            handles.append(Line2D([], [], label="with CLIP's tags", color="black", dashes=_DASHES))
        if len(handles) > 1:
            legend_options: dict[str, Any] = {"loc": "outside right upper", "frameon": False}
            for text in figure.legend(handles=handles, fontsize=9, **legend_options).get_texts():
                text.set_parse_math(False)
        save_chart(figure, out, files)


def _lines(axis: Axes, panel: LinePanel, names: Sequence[str]) -> None:
    for name, values in panel.series.items():
        xs = sorted(values)
        means = [statistics.mean(values[x]) for x in xs]
        spread = [statistics.stdev(values[x]) if len(values[x]) > 1 else 0.0 for x in xs]
        style = _style(names.index(name))
        axis.errorbar(xs, means, yerr=spread if any(spread) else None, capsize=2, **style)
        if name in panel.levels:  # dashes of lines at the same height alternate
            dashes = (2.0 * names.index(name), _DASHES)
            axis.axhline(panel.levels[name], color=style["color"], linestyle=dashes, linewidth=1.2)
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    plain_axes(axis)


def _range(panels: Sequence[LinePanel]) -> tuple[float, float]:
    """Ends of the axis that hold every line of some panels."""
    values = [v for p in panels for line in p.series.values() for at in line.values() for v in at]
    values += [level for panel in panels for level in panel.levels.values()]
    margin = _MARGIN * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _style(index: int) -> dict[str, Any]:
    repeated = index // len(COLOURS)
    marker = "os^D"[repeated % 4]
    return {"color": COLOURS[index % len(COLOURS)], "marker": marker, "markersize": 4.0}
