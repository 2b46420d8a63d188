"""The command line's root: sub-commands by group, and how errors are shown."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import wsss
from wsss import __version__
from wsss._compat.missing_packages import explain_import
from wsss.cli.commands import (
    config,
    data,
    doctor,
    export,
    knowledge,
    launch,
    papers,
    photos,
    results,
    stages,
    truth,
    upkeep,
    weights,
)
from wsss.compute.machine import allow_open_files, keep_freed_memory, name_user, wait_briefly
from wsss.errors import WsssError
from wsss.pipeline.job import JOB_VARIABLE, current_job, refuse_other_code
from wsss.pipeline.parent_watch import exit_with_parent
from wsss.pipeline.stage_log import LogFormatter, printable

app = typer.Typer(
    name="wsss",
    help=(
        "From images with image-level tags to segmentation masks, and to a segmenter trained on "
        "them. Each stage of the pipeline is a sub-command; `snakemake --cores all` runs them in "
        "order."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
photos.register(app)
stages.register(app)
results.register(app)
papers.register(app)
upkeep.register(app)
doctor.register(app)
launch.register(app, stages.PANEL)
truth.register(app, results.PANEL)
app.add_typer(data.app, name="data", rich_help_panel="Data sets")
app.add_typer(truth.app, name="truth", rich_help_panel="Data sets")
app.add_typer(export.app, name="export", rich_help_panel="Results")
app.add_typer(config.app, name="config", rich_help_panel="Configuration")
app.add_typer(knowledge.app, name="knowledge", rich_help_panel="Configuration")
app.add_typer(weights.app, name="weights", rich_help_panel="Configuration")


def _version(value: bool) -> bool:
    if value:
        typer.echo(f"wsss {__version__}")
        raise typer.Exit
    return value


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def run(application: typer.Typer) -> None:
    """Run the command line.

    Errors that a person can act on (bad input, bad configuration, damaged artifacts) are printed as
    one message with exit code 1; ``WSSS_TRACEBACK=1`` shows the traceback as well. The log of a
    workflow's stage always has it, unless the error is one of bad input.
    """
    exit_with_parent()
    allow_open_files()
    keep_freed_memory()
    wait_briefly()
    name_user()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    first = os.environ.get("RANK", "0") == "0"  # of several, one says how it goes
    logging.getLogger("wsss").setLevel(logging.INFO if first else logging.WARNING)
    try:
        launch.check_processes(sys.argv[1:])
        if job := current_job():
            refuse_other_code(job)
        application()
    except (WsssError, ValueError, RuntimeError, OSError) as error:
        if os.environ.get("WSSS_TRACEBACK"):
            raise
        if os.environ.get(JOB_VARIABLE) and not isinstance(error, WsssError | OSError):
            traceback.print_exception(error)  # into the log, above the message
        Console(stderr=True).print("[bold red]error:[/] ", end="")
        print(printable(_text(error)), file=sys.stderr)
        sys.exit(1)
    except ImportError as error:
        if not (message := explain_import(error)):
            raise
        sys.exit(f"error: {message}")


def _text(error: Exception) -> str:
    """What an error says; torch's own, when a GPU's memory runs out, names no key."""
    text = str(error) or repr(error)
    if type(error).__name__ != "OutOfMemoryError":  # else torch is imported already
        is_clear = isinstance(error, WsssError | OSError) or _is_raised_here(error)
        if is_clear or os.environ.get(JOB_VARIABLE):
            return text
        return f"{text} (WSSS_TRACEBACK=1 shows where)"
    from wsss.compute.device_memory import reason_of

    return (
        f"out of memory on the GPU: {reason_of(error)}; lower retrain.batch or retrain.crop of a "
        "training, compute.batch, clip.long_side or predict.window of other stages, or set "
        "compute.device to cpu"
    )


def _is_raised_here(error: Exception) -> bool:
    """Whether a statement of this package raises it; torch's errors about shapes are none."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    is_ours = Path(wsss.__file__).parent in Path(last.filename).parents
    return is_ours and (last.line or "").startswith("raise")
