"""Layout of a contact sheet: named columns, a row per image with a caption, a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from wsss.score.figures.fonts import drawable, font

CELL = 180
"""Longest side of a picture on the sheet, pixels."""
OVERSAMPLING = 2
"""Pictures are drawn this much larger and scaled down, which smooths their lines."""
PICTURE_SIDE = OVERSAMPLING * CELL
"""Their longer side as they are drawn."""
_GAP, _MARGIN, _CAPTION, _HEADER, _LINE = 8, 16, 24, 30, 26
_INK, _FAINT, _FRAME = (29, 35, 41), (96, 106, 116), (200, 206, 212)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LegendItem:
    """A coloured square and its name."""

    name: str
    colour: Colour
    hatched: bool = False


@dataclass(frozen=True)
class Row:
    """One image: a picture per column (None: there is none), its id and its tags."""

    pictures: tuple[UInt8[np.ndarray, "h w 3"] | None, ...]
    name: str
    tags: tuple[LegendItem, ...]


def cell_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the pictures of an image."""
    scale = PICTURE_SIDE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def draw_sheet(
    title: str, columns: Sequence[str], rows: Sequence[Row], legend: Sequence[LegendItem], note: str
) -> Image.Image:
    """Draw the sheet.

    Args:
        title: first line.
        columns: header of each column.
        rows: the images, top to bottom.

    Texts are drawn in one line each, cut to their place; see `wsss.score.figures.fonts` for letters
    that the usual font lacks.
    """
    title, note, columns = drawable(title), drawable(note), [drawable(name) for name in columns]
    legend = [_drawable_item(item) for item in legend]
    rows = [
        replace(row, name=drawable(row.name), tags=tuple(map(_drawable_item, row.tags)))
        for row in rows
    ]
    width = max(2 * _MARGIN + len(columns) * (CELL + _GAP) - _GAP, 4 * CELL)
    heights = [
        max((_scaled(p)[1] for p in row.pictures if p is not None), default=0) for row in rows
    ]
    legend_lines = _wrap(legend, width - 2 * _MARGIN)
    note_lines = _wrap_text(note, width - 2 * _MARGIN)
    top = _MARGIN + _LINE + _HEADER
    total = top + sum(heights) + len(rows) * (_CAPTION + _GAP)
    total += _LINE * (len(legend_lines) + len(note_lines)) + _MARGIN
    sheet = Image.new("RGB", (width, total), "white")
    pen = ImageDraw.Draw(sheet)
    title = _fit(title, 15, width - 2 * _MARGIN, bold=True)
    pen.text((_MARGIN, _MARGIN), title, _INK, font(title, 15, bold=True))
    for index, name in enumerate(columns):
        centre = _MARGIN + index * (CELL + _GAP) + CELL // 2
        head = _fit(name, 13, CELL, bold=True, keeps_start=True)
        pen.text((centre, top - 8), head, _INK, font(head, 13, bold=True), anchor="ms")
    y = top
    for row, height in zip(rows, heights, strict=True):
        _draw_row(sheet, pen, row, y, height)
        y += height + _CAPTION + _GAP
    for line in legend_lines:
        _draw_legend(pen, line, _MARGIN, y)
        y += _LINE
    for text in note_lines:
        pen.text((_MARGIN, y + 2), text, _FAINT, font(text, 11))
        y += _LINE
    return sheet


def _draw_row(sheet: Image.Image, pen: ImageDraw.ImageDraw, row: Row, y: int, height: int) -> None:
    for index, picture in enumerate(row.pictures):
        x0 = _MARGIN + index * (CELL + _GAP)
        if picture is None:
            pen.text(
                (x0 + CELL // 2, y + height // 2), "none", _FAINT, font("none", 12), anchor="mm"
            )
            continue
        size = _scaled(picture)
        x, top = x0 + (CELL - size[0]) // 2, y + (height - size[1]) // 2
        sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (x, top))
        pen.rectangle((x - 1, top - 1, x + size[0], top + size[1]), outline=_FRAME)
    name = _fit(row.name, 11, 2 * CELL)
    pen.text((_MARGIN, y + height + 4), name, _FAINT, font(name, 11))
    start = _MARGIN + round(_length(name, 11)) + 14
    _draw_legend(pen, row.tags, start, y + height + 1)


def _draw_legend(
    pen: ImageDraw.ImageDraw,
    items: Sequence[LegendItem],
    x: int,
    y: int,
) -> None:
    for item in items:
        box = (x, y + 3, x + 13, y + 16)
        pen.rectangle(box, fill=item.colour, outline=_FRAME)
        if item.hatched:
            for offset in (5, 12):
                pen.line((x + 1, y + 3 + offset, x + offset, y + 4), "white", 2)
        pen.text((x + 19, y + 2), item.name, _INK, font(item.name, 12))
        x += _item_width(item)


def _item_width(item: LegendItem) -> int:
    return 19 + round(_length(item.name, 12)) + 16


def _drawable_item(item: LegendItem) -> LegendItem:
    return replace(item, name=_fit(drawable(item.name), 12, 2 * CELL))


def _wrap(items: Sequence[LegendItem], width: int) -> list[list[LegendItem]]:
    lines: list[list[LegendItem]] = [[]]
    for item in items:
        if sum(map(_item_width, [*lines[-1], item])) > width and lines[-1]:
            lines.append([])
        lines[-1].append(item)
    return lines


def _wrap_text(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _length(longer, 11) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _fit(
    text: str, points: int, width: int, *, bold: bool = False, keeps_start: bool = False
) -> str:
    """A text that is cut to a width: at its start, unless it shall keep that."""
    if _length(text, points, bold=bold) <= width:
        return text
    if keeps_start:
        while text and _length(text + "…", points, bold=bold) > width:
            text = text[:-1]
        return text + "…"
    while text and _length("…" + text, points, bold=bold) > width:
        text = text[1:]  # ids differ at their end
    return "…" + text


def _length(text: str, points: int, *, bold: bool = False) -> float:
    return font(text, points, bold=bold).getlength(text)


def _scaled(picture: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int]:
    return picture.shape[1] // OVERSAMPLING or 1, picture.shape[0] // OVERSAMPLING or 1
