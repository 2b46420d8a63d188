"""Names in any script, formulas and long texts in pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.score.figures import fonts
from wsss.score.figures.curves import Panel, draw_bars
from wsss.score.figures.sheet_layout import LegendItem, Row, draw_sheet

PRIVATE = "\ue0dc\ue0de"  # letters that of matplotlib's fonts only one of STIX has
STIX = fonts._FONTS / "STIXNonUni.ttf"


@pytest.fixture(autouse=True)
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine where no font but matplotlib's usual one is installed."""
    installed(monkeypatch)
    yield
    fonts._font_file.cache_clear()


def installed(monkeypatch: pytest.MonkeyPatch, *files: Path) -> None:
    monkeypatch.setattr(fonts, "_installed", lambda: files)
    monkeypatch.setattr(fonts, "_missing_letters", set())
    fonts._font_file.cache_clear()


def sheet(*names: str) -> np.ndarray:
    items = tuple(LegendItem(name, (200, 0, 0)) for name in names)
    row = Row((np.zeros((90, 90, 3), np.uint8),), "id", items)
    return np.array(draw_sheet("title", ["image"], [row], items, "note"))


def test_letters_that_no_font_has_are_spelt(caplog: pytest.LogCaptureFixture) -> None:
    assert fonts.drawable("a\n  cat\tß é") == "a cat ß é"
    assert fonts.drawable("猫 x") == "U+732B x"
    assert fonts.class_name("🐶", 2) == "class 2 (U+1F436)"
    assert fonts.class_name("猫" * 20, 3) == "class 3 (U+732B U+732B U+732B U+732B U…)"
    assert fonts.class_name("two\nlines", 4) == "two lines"
    (record,) = caplog.records
    assert "no installed font has '猫'" in record.getMessage()
    assert "install a font" in record.getMessage()
    assert not np.array_equal(sheet("猫"), sheet("犬"))


def test_a_font_that_has_the_letters_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.ttf"
    damaged.write_bytes(b"no font")
    spelt = sheet(PRIVATE)
    installed(monkeypatch, damaged, STIX)
    assert fonts.class_name(PRIVATE, 1) == PRIVATE
    assert fonts.font(PRIVATE, 12).path == str(STIX)
    assert fonts.font("cat", 12, bold=True).path == str(fonts._BOLD)
    assert not np.array_equal(sheet(PRIVATE), spelt)
    assert not np.array_equal(sheet(PRIVATE[0]), sheet(PRIVATE[1]))
    assert fonts.families(["cat", PRIVATE]) == ["DejaVu Sans", "STIXNonUnicode"]


def test_dollars_are_no_formulas_and_long_names_leave_room_for_the_bars(tmp_path: Path) -> None:
    def chart(*names: str) -> np.ndarray:
        shares: dict[str, float | None] = dict.fromkeys(names, 0.5)
        draw_bars([Panel("$x", {"$y^2$": shares}, head=names[0])], tmp_path / "bars.png")
        return np.array(Image.open(tmp_path / "bars.png").convert("RGB"))

    formula = chart(r"$\frac$", "$x$", "$")
    assert not np.array_equal(formula, chart(r"$\sqrt$", "$x$", "$"))
    blue = np.array([0x44, 0x77, 0xAA])
    assert (chart("long " * 19, "b", "c") == blue).all(-1).any(0).sum() > 100  # columns of a bar


def test_long_texts_are_cut_to_their_place() -> None:
    assert sheet("x" * 300).shape == sheet("x" * 60).shape
