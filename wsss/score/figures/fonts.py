"""Fonts that have the letters of a text, and what is written where none has.

Pictures are drawn with DejaVu Sans, which ships with matplotlib and has no Chinese, Japanese or
Korean letters and few emoji. Texts that it cannot write are written with the first installed font
that has all their letters; without one, missing letters are written as code points (``U+732B``).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

_log = logging.getLogger(__name__)
_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_PLAIN, _BOLD = _FONTS / "DejaVuSans.ttf", _FONTS / "DejaVuSans-Bold.ttf"
_LONGEST_KEY = 30  # letters
_missing_letters: set[str] = set()  # in all pictures of this process: one line on the log is enough


def drawable(text: str) -> str:
    """The text in one line, with code points for the letters that no font can write."""
    line = " ".join(text.split())
    if _font_file(line) is not None:
        return line
    missing = frozenset(line) - _letters(_PLAIN)
    _say_missing(missing)
    spelt = (f"U+{ord(letter):04X} " if letter in missing else letter for letter in line)
    return " ".join("".join(spelt).split())


def class_name(name: str, label: int) -> str:
    """The name of a class, or its number and what can be written of the name."""
    shown = drawable(name)
    if _font_file(" ".join(name.split())) is not None:
        return shown
    key = shown if len(shown) <= _LONGEST_KEY else f"{shown[: _LONGEST_KEY - 1]}…"
    return f"class {label} ({key})"


def font(text: str, points: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """A font for a text that `drawable` gave."""
    file = _font_file(text) or _PLAIN
    return ImageFont.truetype(str(_BOLD if bold and file == _PLAIN else file), points)


def families(texts: Iterable[str]) -> list[str]:
    """Names of font families that together write all texts, for matplotlib."""
    from matplotlib import font_manager

    logging.getLogger(font_manager.__name__).setLevel(logging.ERROR)  # fonts without a bold form
    files = {str(file) for text in texts if (file := _font_file(text)) and file != _PLAIN}
    names = []
    for path in sorted(files):
        font_manager.fontManager.addfont(path)
        names.append(font_manager.FontProperties(fname=path).get_name())
    return ["DejaVu Sans", *names]


@functools.lru_cache(maxsize=10_000)
def _font_file(text: str) -> Path | None:
    """The first font that has every letter of a text, DejaVu Sans before all others."""
    letters = frozenset(text)
    if letters <= _letters(_PLAIN):
        return _PLAIN
    return next((file for file in _installed() if letters <= _letters(file)), None)


@functools.cache
def _installed() -> tuple[Path, ...]:
    from matplotlib.font_manager import findSystemFonts  # slow, and hardly ever needed

    return tuple(sorted(map(Path, findSystemFonts())))


@functools.cache
def _letters(file: Path) -> frozenset[str]:
    """The letters of a font that can be drawn in any size; none of a damaged one."""
    try:
        face = FT2Font(str(file))
        return frozenset(map(chr, face.get_charmap())) if face.scalable else frozenset()
    except (RuntimeError, OSError, ValueError):
        return frozenset()


def _say_missing(letters: frozenset[str]) -> None:
    if not _missing_letters:
        _log.warning(
            "no installed font has %s: pictures show code points, and numbers of classes, where "
            "a letter is missing; install a font, e.g. Noto Sans CJK or Noto Emoji",
            " ".join(sorted(map(repr, letters))),
        )
    _missing_letters.update(letters)
