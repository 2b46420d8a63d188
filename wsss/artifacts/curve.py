"""Loss curves as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence


def curve_csv(curve: Mapping[str, Sequence[float]]) -> str:
    """A row a training step, with six digits.

    Args:
        curve: values of each column, of equal length; the column ``step`` (1-based) is put in
            front. Without any column there is just the head ``step,loss``.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["step", *(curve or ["loss"])])
    for step, row in enumerate(zip(*curve.values(), strict=True), start=1):
        writer.writerow([step, *(f"{value:.6g}" for value in row)])
    return buffer.getvalue()
