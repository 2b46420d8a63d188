"""`wsss knowledge …`: descriptions of classes, for the enriched texts of patch-text CAMs (TSE)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from wsss.clip.text import knowledge

app = typer.Typer(
    help="Descriptions of what classes look like: add your own, look at them.",
    no_args_is_help=True,
)
Classes = Annotated[list[str], typer.Argument(help="Class names, as in your tags.")]


@app.command()
def prompt(
    classes: Classes,
    count: Annotated[int, typer.Option(help="Sentences a class.", min=1)] = 20,
) -> None:
    """Print what to ask a language model, so that `add` can read its answer."""
    typer.echo(knowledge.prompt(classes, count), nl=False)


@app.command()
def add(
    source: Annotated[
        Path,
        typer.Argument(
            help="Text or JSON with descriptions, e.g. a model's answer; - reads it from the pipe."
        ),
    ],
    to: Annotated[Path, typer.Option(help="JSON file that gets them; made where there is none.")],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A name that is a heading without a mark; alone, what all of the text is about.",
        ),
    ] = None,
) -> None:
    """Add descriptions from any text file to a knowledge base.

    A class is a line of its own (`dog:`, `## dog`, `**Dog**`), its sentences follow one a line.
    Then name the file in cams.patch_text.tse.knowledge.
    """
    where = "standard input" if str(source) == "-" else str(source)
    try:
        text = sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise knowledge.KnowledgeError(f"{where}: cannot be read as UTF-8 text ({error})") from None
    found = knowledge.parse(text, where, known=classes or [])
    kept = knowledge.add(found, to)
    for name in found:
        typer.echo(f"{name}: {len(found[name])} read, {len(kept[name])} in {to}")


@app.command()
def show(
    classes: Annotated[list[str] | None, typer.Argument(help="Classes (default: all).")] = None,
    knowledge_file: Annotated[
        Path | None,
        typer.Option("--knowledge", help="Your own file, laid over the built-in."),
    ] = None,
) -> None:
    """Print the descriptions of classes."""
    known = knowledge.read(knowledge.BUILT_IN / "objects.json")
    if knowledge_file is not None:
        known |= knowledge.read(knowledge_file)
    for name in classes or known:
        if name not in known:
            raise knowledge.KnowledgeError(
                f"no description of {name!r}; known are {', '.join(known)}"
            )
        typer.echo(f"{name}:")
        for sentence in known[name]:
            typer.echo(f"  {sentence}")
