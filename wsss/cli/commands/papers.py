"""Tables of papers, and the difference of two runs, as sub-commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PANEL = "Results"


def paper_table(
    table: Annotated[
        Path,
        typer.Argument(help="A file of workflow/tables.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write <table>.md, .csv and .html to.")],
    records: Annotated[
        list[str],
        typer.Option(
            help=(
                "What a row's run wrote. ROW is its name in the table, its slug or the label of a "
                "run. PATH is the folder of the run (results/<name>), a file of `wsss score` or "
                "the cost that refine-train wrote. Repeat for each path."
            ),
            metavar="ROW=PATH",
        ),
    ] = [],  # noqa: B006
) -> None:
    """A paper's table: measured and published numbers side by side.

    Rows without --records stay empty. A table of classes also gets a picture
    with bars.
    """
    from wsss.score.papers.render import make_paper_table

    for path in make_paper_table(table, parse_records(records), out):
        typer.echo(path)


def table_runs(
    table: Annotated[
        Path,
        typer.Argument(help="A file of workflow/tables.", show_default=False),
    ],
) -> None:
    """The runs that a table needs: what is laid over config.yaml for each, as YAML."""
    import yaml

    from wsss.score.papers.runs import table_runs as runs

    typer.echo(yaml.safe_dump(runs(table), sort_keys=False, allow_unicode=True), nl=False)


def difference(
    first: Annotated[Path, typer.Argument(help="Records of `wsss score`.", show_default=False)],
    second: Annotated[
        Path,
        typer.Argument(help="Records of another run on the same images.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option(help="CSV to write as well.")] = None,
    resamples: Annotated[int, typer.Option(help="Draws of the images.", min=1)] = 1000,
) -> None:
    """How far two runs are apart: the difference of their mIoU, with a 95 % interval.

    Paired: in every draw of images both runs are scored on the same ones. The
    interval covers other images, not other seeds of the two trainings.
    """
    from wsss.score.tables.difference import differences, sentence, write_differences

    pairs = differences(first, second, resamples=resamples)
    for pair in pairs:
        typer.echo(sentence(pair))
    if out is not None:
        write_differences(pairs, out)


def parse_records(texts: list[str]) -> dict[str, list[Path]]:
    """``["weclip=a.json", "weclip=b.json"]`` → ``{"weclip": [a.json, b.json]}``.

    Raises:
        typer.BadParameter: a text is not of that form.
    """
    paths: dict[str, list[Path]] = {}
    for text in texts:
        row, equals, path = text.partition("=")
        if not (row and equals and path):
            raise typer.BadParameter(
                f"found {text!r}, expected ROW=PATH such as weclip=results/voc12-weclip"
            )
        paths.setdefault(row, []).append(Path(path))
    return paths


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (paper_table, table_runs, difference):
        app.command(rich_help_panel=PANEL)(command)
