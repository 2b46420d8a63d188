"""Tables of results: each comes from one file, which a page shows, and every method is compared."""

import csv
import importlib.util
import itertools
import re
from pathlib import Path
from types import ModuleType

import pytest

from wsss.refine.registry import METHODS

_DOCS = Path(__file__).parents[1] / "docs"
_FILES = sorted(_DOCS.glob("results/data/*.csv"))


def _comparison() -> ModuleType:
    path = _DOCS / "_extensions/comparison.py"
    spec = importlib.util.spec_from_file_location("comparison", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_a_file_is_a_table_that_a_page_shows(path: Path) -> None:
    header, *rows = csv.reader(path.open(encoding="utf-8", newline=""))
    assert rows
    assert {len(row) for row in rows} == {len(header)}
    assert len(set(header)) == len(header), "a column is found by its name"
    for cell in [*header, *(cell for row in rows for cell in row)]:
        assert not re.match(r"([-+*#>]|\d+[.)])\s", cell), f"{cell} would be a list or a heading"
    sources = [*_DOCS.glob("results/*.md"), _DOCS / "_extensions/comparison.py"]
    text = "\n".join(source.read_text("utf-8") for source in sources)
    assert f"data/{path.name}" in text or f'"{path.stem}"' in text


def test_no_table_of_figures_is_written_into_a_page() -> None:
    for page in _DOCS.glob("results/*.md"):
        for row in re.findall(r"^\|.*\|$", page.read_text("utf-8"), re.MULTILINE):
            assert not re.search(r"\| \**\d+\.\d( ±| \(| \|)", row), f"{page.name}: {row}"


def test_every_step_of_the_demo_gains_in_every_seed() -> None:
    """The claims of docs/results/demo.md hold for the figures that it shows."""
    path = _DOCS / "results/data/demo-seeds.csv"
    _, *rows = csv.reader(path.open(encoding="utf-8", newline=""))
    figures = [(title, [float(cell) for cell in cells[:3]]) for title, *cells in rows]
    train, floors = figures[:3], [title for title, _ in figures if "CLIP predicts" in title]
    assert [title.split(",")[0] for title, _ in train] == [
        "CAM",
        "WeCLIP's scores",
        "pseudo mask (CRF)",
    ]
    steps = list(itertools.pairwise(values for _, values in train))
    assert len(floors) == 2  # without CRF, with it
    for first in (index for index, (title, _) in enumerate(figures) if title in floors):
        floor, refiner, mirrored_refiner, segmenter, mirrored = (
            values for _, values in figures[first : first + 5]
        )
        steps += [(floor, segmenter), (floor, mirrored)]
        steps += [(refiner, segmenter), (mirrored_refiner, mirrored)]
    for before, after in steps:
        assert all(lower < higher for lower, higher in zip(before, after, strict=True))


def test_every_method_is_compared() -> None:
    comparison = _comparison()
    unmeasured = {page.replace("-", "_") for page in comparison.UNMEASURED.values()}
    assert set(comparison.METHODS.values()) | unmeasured == set(METHODS)
    for table in (comparison.demo(), comparison.photographs(), comparison.costs()):
        rows = [line for line in table.splitlines() if line.startswith("| ")]
        for method in ("CLIP-ES", *comparison.METHODS, *comparison.UNMEASURED):
            begins = re.compile(rf"\| \[?{re.escape(method)}[\] ]")
            assert sum(bool(begins.match(row)) for row in rows) == 1
        assert len({row.count("|") for row in rows}) == 1


def test_a_row_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"weclip-demo\.csv has no row that begins with"):
        _comparison()._cell("weclip-demo", ["no such row"], "scores train")
