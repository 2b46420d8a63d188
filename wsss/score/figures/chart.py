"""What all charts share: colours, axes, and how a picture is written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wsss.artifacts.digest import digest_file
from wsss.artifacts.png_stamp import write_picture
from wsss.artifacts.stage import STAGES

# Paul Tol's "bright" colours: told apart by every kind of colour vision.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#777777")


def plain_axes(axes: Axes) -> None:
    """A light grid behind what is drawn, and no frame above and to the right."""
    axes.grid(visible=True, color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save_chart(figure: Figure, out: Path, files: Sequence[Path]) -> None:
    """Write atomically and without dates or random ids, so that equal data give equal files.

    Args:
        out: picture to write, ``.png`` or ``.svg``.
        files: behind the chart, for its provenance.
    """
    kind = out.suffix.lstrip(".").lower() or "png"
    FigureCanvasAgg(figure)
    figure.set_dpi(150)
    plain = {"Date": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "wsss"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=plain)
    inputs = {str(path): digest_file(path) for path in files}
    write_picture(out, buffer.getvalue(), STAGES["charts"].provenance({}, inputs=inputs))
