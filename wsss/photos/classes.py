"""The classes of a folder of results: ids and colours stay, new classes are appended."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.atomic import write_text
from wsss.artifacts.errors import ArtifactError
from wsss.data.datasets.classes import MAX_CLASSES, spelling
from wsss.errors import raise_unless_about
from wsss.score.page.palette import hex_colours, picture_palette

CLASSES = "classes.csv"
_COLUMNS = ("id", "name", "color")
_COLOUR = re.compile("#[0-9a-f]{6}")


@dataclass(frozen=True)
class ClassTable:
    """The labels of masks: 0 is background, the others are classes."""

    names: tuple[str, ...]
    """By label, background first."""
    colours: tuple[str, ...]
    """``#rrggbb`` of each."""

    def with_classes(self, names: Iterable[str]) -> ClassTable:
        """This table with new classes at its end.

        Raises:
            ArtifactError: there are more classes than label images of 8 bits hold.
        """
        present = {spelling(name) for name in self.names}
        new = {spelling(name): name for name in names if spelling(name) not in present}
        total = len(self.names) + len(new)
        if total > MAX_CLASSES + 1:
            raise ArtifactError(
                f"{total - 1} classes, with those of earlier runs; label images of 8 bits hold at "
                f"most {MAX_CLASSES}; choose another --out"
            )
        colours = hex_colours(picture_palette(total), total)[len(self.names) :]
        return ClassTable((*self.names, *new.values()), (*self.colours, *colours))

    def labels(self, names: Iterable[str]) -> list[int]:
        """The label of each name, which must be in the table."""
        by_spelling = {spelling(name): label for label, name in enumerate(self.names)}
        return [by_spelling[spelling(name)] for name in names]

    def palette(self) -> UInt8[np.ndarray, "256 3"]:
        """RGB of each label, with those that later classes will have."""
        palette = picture_palette(MAX_CLASSES + 1)
        for label, colour in enumerate(self.colours):
            palette[label] = list(bytes.fromhex(colour[1:]))
        return palette


BACKGROUND = ClassTable(("background",), ("#000000",))
"""A table without a class."""


def read_class_table(folder: Path) -> ClassTable:
    """The classes of a folder of results; `BACKGROUND` for a new folder.

    Raises:
        ArtifactError: its table is damaged.
    """
    path = folder / CLASSES
    try:
        rows = list(csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
    except FileNotFoundError:
        return BACKGROUND
    except (OSError, ValueError, csv.Error) as error:
        raise_unless_about(path, error)
        raise ArtifactError(f"{path}: cannot be read ({error}); {_REMEDY}") from None
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise ArtifactError(
            f"{path}: its header is {rows[0] if rows else ''!r}, expected {','.join(_COLUMNS)}; "
            f"{_REMEDY}"
        )
    for label, row in enumerate(rows[1:]):
        if len(row) != 3 or row[0] != str(label) or not _COLOUR.fullmatch(row[2]):
            raise ArtifactError(
                f"{path}: line {label + 2} is {','.join(row)!r}, expected {label},name,#rrggbb; "
                f"{_REMEDY}"
            )
    names, colours = (tuple(row[column] for row in rows[1:]) for column in (1, 2))
    return ClassTable(names, colours) if names else BACKGROUND


_REMEDY = "restore the file, or delete it: then ids and colours are given anew"


def write_class_table(folder: Path, classes: ClassTable) -> None:
    """Atomically write the table."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for label, row in enumerate(zip(classes.names, classes.colours, strict=True)):
        writer.writerow([label, *row])
    write_text(folder / CLASSES, buffer.getvalue())
