"""Sphinx extension: a fenced block ``{generated}`` becomes what the program says of itself."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import comparison
import typer
from sphinx.application import Sphinx
from typer.cli import get_docs_for_click

import wsss
from benchmarks.rehearse.project import preset_files
from wsss.cli.app import app as cli
from wsss.config.load import load_config
from wsss.config.render import reference_markdown

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```\{generated\} (\w+)\n```$", re.MULTILINE)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _fill)
    app.connect("env-get-outdated", _pages_with_blocks)
    return {"parallel_read_safe": True}


def _pages_with_blocks(app: Sphinx, env: object, *changes: set[str]) -> list[str]:
    """They are read in each build, since the program may have changed."""
    pages = Path(app.srcdir).glob("*/*.md")
    return [f"{p.parent.name}/{p.stem}" for p in pages if _BLOCK.search(p.read_text("utf-8"))]


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = _BLOCK.sub(lambda block: _TEXTS[block[1]](), source[0])


def _commands() -> str:
    """Every command with its arguments and options."""
    command = typer.main.get_command(cli)
    _with_whole_sentences(command)
    context = typer.Context(command, info_name="wsss")  # type: ignore[arg-type]
    text = get_docs_for_click(obj=command, ctx=context, name="wsss")
    _, _, text = text.partition("\n")  # the page has a title
    return text.replace("<", r"\<")


def _with_whole_sentences(command: Any) -> None:
    """Lists of commands would break off after 45 letters."""
    for inner in getattr(command, "commands", {}).values():
        inner.short_help = " ".join((inner.help or "").partition("\n\n")[0].split())
        _with_whole_sentences(inner)


def _python() -> str:
    """The public names and what they return, for autodoc."""
    lines = ["```{eval-rst}"]
    for title, names in _PYTHON.items():
        lines += ["", f".. rubric:: {title}", ""]
        for name in names:
            kind = "autoclass" if name.rpartition(".")[2][0].isupper() else "autofunction"
            lines.append(f".. {kind}:: wsss.{name}")
            if kind == "autoclass":
                lines.append("   :members:")
    listed = {name for names in _PYTHON.values() for name in names}
    if missing := set(wsss.__all__) - {"__version__"} - listed:
        raise ValueError(f"{__file__} does not list {', '.join(sorted(missing))}")
    return "\n".join([*lines, "```"])


def _presets() -> str:
    """Every preset: what it is laid over, and the comment that begins it."""
    lines = ["| preset | data | refiner | on top of | what it is |", "|---|---|---|---|---|"]
    for path in sorted(ROOT.glob("workflow/presets/*.yaml")):
        files = [ROOT / "config.yaml", *(ROOT / name for name in preset_files(path.stem))]
        below = ", ".join(f"`{file.stem}`" for file in files[1:-1])
        config = load_config(*files)
        text = _head(path.read_text("utf-8"))
        cells = [f"`{path.stem}`", config.data.kind, config.refine.method, below, text]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _head(text: str) -> str:
    """The comment that begins a preset, without what editors read and without commands."""
    head = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    sentences = ""
    for line in (line.removeprefix("#") for line in head):
        if line.startswith("   "):  # a command
            sentences = re.sub(r":$", ".", sentences)
        elif "$schema=" not in line:
            sentences += line
    return sentences.strip().replace("$", "\\$")


def _departures() -> str:
    """The tables of departures of all methods' pages as one."""
    lines = ["| method | option | published | corrected | released code, effect |"]
    lines.append("|---|---|---|---|---|")
    for page in sorted(ROOT.glob("docs/methods/*.md")):
        text = page.read_text("utf-8")
        title = text.partition("\n")[0].removeprefix("# ")
        for row in re.findall(r"^\| (.+) \| (`[\w., `]+`) \| (.+) \| (.+) \| (.+) \|$", text, re.M):
            what, key, published, corrected, effect = (
                cell.replace("](", "](../methods/").replace("/methods/#", f"/methods/{page.name}#")
                for cell in row
            )
            link = f"[{title}](../methods/{page.name}#4-departures-of-the-released-code)"
            lines.append(f"| {link} | {key} | {published} | {corrected} | {what}: {effect} |")
    return "\n".join(lines)


_TEXTS = {
    "commands": _commands,
    "compare_costs": comparison.costs,
    "compare_demo": comparison.demo,
    "compare_photographs": comparison.photographs,
    "configuration": reference_markdown,
    "departures": _departures,
    "presets": _presets,
    "python": _python,
}
_PYTHON = {
    "From a photo to a mask": [
        "read_image", "load_clip", "grad_cam", "patch_text_cams", "pseudo_mask",
    ],
    "The parts": ["propagate", "dense_crf", "pixel_adaptive_refinement"],
    "Trained networks": ["load_refiner", "load_segmenter"],
    "What they return": [
        "api.clip.Clip", "api.results.ClassMaps", "api.results.Segmentation",
        "api.models.Predictor", "api.models.RefinerPredictor",
    ],
    "Scores, files, configuration": ["Confusion", "Shard", "load_config"],
    "Methods": ["Refiner"],
}  # fmt: skip
