"""Sphinx extension: the reference pages that are generated from the program itself."""

from __future__ import annotations

from pathlib import Path

import typer
import yaml
from sphinx.application import Sphinx
from typer.cli import get_docs_for_click

from wsss.cli.app import app as cli

ROOT = Path(__file__).parents[2]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}


def _write(app: Sphinx) -> None:
    folder = Path(app.srcdir, "reference")
    folder.mkdir(exist_ok=True)
    for name, text in {"cli": _commands(), "presets": _presets()}.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _commands() -> str:
    """Every command with its arguments and options."""
    command = typer.main.get_command(cli)
    context = typer.Context(command, info_name="wsss")  # type: ignore[arg-type]
    text = get_docs_for_click(obj=command, ctx=context, name="wsss", title="Command line")
    return text.replace("<", r"\<")


def _presets() -> str:
    """Every preset with the comment that begins it."""
    lines = [
        "# Presets",
        "",
        "A preset is a configuration in `workflow/presets` that is laid over `config.yaml`:",
        "`snakemake --cores all --configfile workflow/presets/NAME.yaml`.",
        "",
        "| preset | data | refiner | what it is |",
        "|---|---|---|---|",
    ]
    for path in sorted(ROOT.glob("workflow/presets/*.yaml")):
        text = path.read_text("utf-8")
        comment = [
            line.lstrip("# ").strip()
            for line in text.splitlines()
            if line.startswith("#") and "snakemake" not in line
        ]
        content = yaml.safe_load(text)
        kind = content.get("data", {}).get("kind", "demo")
        method = content.get("refine", {}).get("method", "none")
        lines.append(f"| `{path.stem}` | {kind} | {method} | {' '.join(comment)} |")
    return "\n".join(lines) + "\n"
