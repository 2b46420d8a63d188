"""The pages of docs/methods: every departure is on one, and what the code cites exists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsss.config.base import Section
from wsss.config.model import Config

_ROOT = Path(__file__).parents[1]
_PAGES = {path.name: path.read_text("utf-8") for path in _ROOT.glob("docs/methods/*.md")}
_CITED = re.compile(r"[Ee]q\.\s+((?:\d+|-|,|and|\s)+?)\s+of\s+docs/methods/([\w-]+\.md)")


def _departures(section: Section, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    for name, field in type(section).model_fields.items():
        value, extra = getattr(section, name), field.json_schema_extra
        if isinstance(value, Section):
            yield from _departures(value, f"{prefix}{name}.")
        elif isinstance(extra, dict) and "published" in extra:
            yield f"{prefix}{name}", extra["published"], extra["corrected"]


def test_every_departure_is_on_a_page_with_both_values() -> None:
    rows = [line.split(" | ") for page in _PAGES.values() for line in page.splitlines()]
    table = {row[1]: [cell.strip("`") for cell in row[2:4]] for row in rows if len(row) == 5}
    for key, *values in _departures(Config()):
        shared = key.replace("seeds.crf", "masks.crf")  # the same options, in one row
        words = [_word(value) for value in values]
        assert table.get(f"`{shared}`") == words, (
            f"a page of docs/methods needs the row | … | `{shared}` | {words[0]} | {words[1]} | … |"
        )


def _word(value: object) -> str:
    if isinstance(value, str):
        return value or "empty"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


@pytest.mark.parametrize("name", sorted(_PAGES))
def test_equations_and_modules_of_a_page(name: str) -> None:
    page = _PAGES[name]
    anchors = re.findall(r'^<a id="eq-(\d+)"></a>\n\*\*\((\d+)\)\*\*', page, re.MULTILINE)
    assert anchors == [(str(n), str(n)) for n in range(1, len(anchors) + 1)], (
        f'{name}: number equations 1, 2, … : a line <a id="eq-1"></a>, then a line with **(1)**'
    )
    for module in re.findall(r"`(wsss/[\w/]+(?:\.py|/))`", page):
        assert (_ROOT / module).exists(), f"{name}: no such module: {module}"


def test_equations_that_the_code_cites_exist() -> None:
    files = [
        path for room in ("wsss", "tests", "benchmarks") for path in _ROOT.glob(f"{room}/**/*.py")
    ]
    cited = [(path, *match) for path in files for match in _CITED.findall(path.read_text("utf-8"))]
    assert len(cited) > 30
    for path, numbers, page in cited:
        for number in re.findall(r"\d+", numbers):
            assert f'id="eq-{number}"' in _PAGES[page], (
                f'{path} cites eq. {number}, but {page} has no <a id="eq-{number}"></a>'
            )


def test_published_numbers_are_those_of_the_tables() -> None:
    """Heads of presets, method pages and "Reproduce a paper" quote what `workflow/tables` has."""
    number = re.compile(r"(?<![\d.])\d\d\.\d(?!\.?\d)")
    tables = "".join(path.read_text("utf-8") for path in _ROOT.glob("workflow/tables/*.yaml"))
    published = set(number.findall(tables))
    quoted = 0
    pages = ("workflow/presets/*.yaml", "docs/methods/*.md", "docs/howto/reproduce.md")
    for path in (path for page in pages for path in _ROOT.glob(page)):
        text = re.sub(r"\n(#|  ) ?", " ", path.read_text("utf-8"))
        for numbers in map(number.findall, re.findall(r".*\b[Pp]ublished.*", text)):
            assert published.issuperset(numbers), f"{path.name}: {numbers} are in no table"
            quoted += len(numbers)
    assert quoted > 70
