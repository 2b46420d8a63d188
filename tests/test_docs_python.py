"""The pieces of docs/howto/python.md and the cells of the notebook run as they stand there."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from tests.demo_checkpoints import write_refiner, write_segmenter

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "howto" / "python.md"
NOTEBOOK = DOCS / "notebooks" / "first-masks.ipynb"


def pieces(page: Path) -> list[str]:
    """The fenced python blocks, each at its own line, so that an error names the line."""
    text = page.read_text()
    return [
        "\n" * text.count("\n", 0, block.start(1)) + block[1]
        for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_refiner(Path("refiner.safetensors"))
    write_segmenter(Path("segmenter.safetensors"))
    namespace: dict[str, object] = {}
    for piece in pieces(PAGE):
        exec(compile(piece, str(PAGE), "exec"), namespace)
    written = {path.name for path in tmp_path.glob("*.png")}
    assert written >= {"house.png", "cams.png", "mask.png", "mask-sheet.png", "prediction.png"}


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    namespace: dict[str, object] = {}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for index, cell in enumerate(cells, start=1):
        assert cell.execution_count == index
        exec(compile(cell.source, f"{NOTEBOOK.name}, cell {index}", "exec"), namespace)
    pictures = [
        output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 3
    assert NOTEBOOK.stat().st_size < 500_000
    assert "/home/" not in json.dumps(notebook)


def test_the_page_is_linked() -> None:
    assert "docs/howto/python.md" in (DOCS.parent / "README.md").read_text()
    assert "howto/python.md" in (DOCS / "explanation/pipeline.md").read_text()
