"""The checker of prose: what it counts, what it leaves out, and where it finds texts."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.prose.rules import Passage, complaints, sentences
from tools.prose.sources import ROOT, command_help, configuration, pages, read_page

LONG = "This sentence " + "really " * 30 + "ends."


def texts(text: str) -> list[str]:
    return [complaint.text for complaint in complaints([Passage(1, text)])]


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path


def test_sentences_end_at_full_stops_but_not_at_abbreviations() -> None:
    passage = Passage(3, "One two, e.g. three.\nX starts small. (Four.) Five: six seven.")
    parts = [(part.line, part.text) for part in sentences(passage)]
    assert parts == [
        (3, "One two, e.g three."),
        (4, "X starts small."),
        (4, "(Four.)"),
        (4, "Five: six seven."),
    ]


def test_a_long_sentence_is_named_with_its_line_and_length() -> None:
    [complaint] = complaints([Passage(1, "Short.\n" + LONG)])
    assert complaint.line == 2
    assert complaint.text.startswith("33 words (at most 25): This sentence really")


def test_a_high_average() -> None:
    sentence = " ".join(["word"] * 18) + ". "
    assert texts(sentence * 4) == []
    assert texts(sentence * 5) == ["18.0 words per sentence on average (at most 16)"]


def test_one_semicolon_in_ten_sentences() -> None:
    assert texts("One; two. " + "Three four. " * 9) == []
    assert len(texts("One; two. Three; four. " + "Five six. " * 9)) == 2


@pytest.mark.parametrize(
    "text",
    [
        "It makes one file an image.",
        "Of input files it compares the times.",
        "So does the table.",
        "The table lies beside the picture.",
        "This hangs on the seed.",
        "It starts anew.",
    ],
)
def test_phrases_with_a_plainer_form(text: str) -> None:
    assert len(texts(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "It is too small for an image of 400 pixels.",
        "Twice as many images are drawn.",
        "It makes one file per image.",
    ],
)
def test_phrases_that_are_plain(text: str) -> None:
    assert texts(text) == []


def test_code_mathematics_tables_and_comments_are_not_prose(tmp_path: Path) -> None:
    text = f"""# {LONG}

| {LONG} | b |
|---|---|
| {LONG} | {LONG} |

```
{LONG}
```

$$
{LONG}
$$

<!-- {LONG} -->

A `{LONG}` and $x \\text{{{LONG}}}$ in [a link](https://example.org/{"a" * 9}).

- An item.
"""
    assert read_page(page(tmp_path, text)) == [
        Passage(17, "A X and X in a link."),
        Passage(19, "An item."),
    ]


def test_an_admonition_is_prose(tmp_path: Path) -> None:
    text = "```{note}\nInside.\n```\n\n:::{tip}\nAlso inside.\n:::\n"
    assert read_page(page(tmp_path, text)) == [Passage(2, "Inside."), Passage(6, "Also inside.")]


def test_the_program_fails_with_file_line_and_length(tmp_path: Path) -> None:
    path = page(tmp_path, f"# Title\n\nShort.\n{LONG}\n")
    command = [sys.executable, "-m", "tools.prose", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{path}:4: 33 words (at most 25): This sentence")


def test_it_reads_pages_captions_descriptions_and_help() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in pages()}
    assert {"README.md", "docs/index.md", "workflow/report/table.rst"} <= names
    described = configuration()
    crf = ROOT / "wsss/config/labels.py"
    assert any("appearance kernel" in passage.text for passage in described[crf])
    assert ROOT / "wsss/refine/excel/options.py" in described
    helps = command_help()[ROOT / "wsss/cli/commands/stages.py"]
    assert any(passage.text.startswith("Decode every image") for passage in helps)
