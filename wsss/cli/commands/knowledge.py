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
    count: Annotated[int, typer.Option(help="Sentences per class.", min=1)] = 20,
) -> None:
    """Print a question to a language model whose answer `add` can read."""
    typer.echo(knowledge.prompt(classes, count), nl=False)


@app.command()
def add(
    source: Annotated[
        Path,
        typer.Argument(
            help="Text or JSON with descriptions, e.g. a model's answer. - reads it from the pipe."
        ),
    ],
    to: Annotated[Path, typer.Option(help="JSON file to add them to, new or not.")],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class that is a heading without a mark. With one alone the text is about it.",
        ),
    ] = None,
) -> None:
    """Add descriptions from any text file to a knowledge base.

    A line with a class alone (`dog:`, `## dog`, `**Dog**`) precedes its sentences, one per line.
    Then name the file in cams.patch_text.tse.knowledge.
    """
    where = "standard input" if str(source) == "-" else str(source)
    try:
        text = sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise knowledge.KnowledgeError(f"{where}: cannot be read as UTF-8 text ({error})") from None
    parsed = knowledge.parse(text, where, class_names=classes or [])
    merged = knowledge.add(parsed, to)
    for name, sentences in parsed.items():
        typer.echo(f"{name}: {len(sentences)} read, {len(merged[name])} in {to}")


@app.command()
def show(
    classes: Annotated[list[str] | None, typer.Argument(help="Classes (default: all).")] = None,
    knowledge_file: Annotated[
        Path | None,
        typer.Option("--knowledge", help="Your file, whose classes replace the built-in ones."),
    ] = None,
) -> None:
    """Print the descriptions of classes."""
    available = knowledge.read(knowledge.BUILT_IN / "objects.json")
    if knowledge_file is not None:
        available |= knowledge.read(knowledge_file)
    for name in classes or available:
        if name not in available:
            raise knowledge.KnowledgeError(
                f"no description of {name!r}; known are {', '.join(available)}"
            )
        typer.echo(f"{name}:")
        for sentence in available[name]:
            typer.echo(f"  {sentence}")
