"""Commands on the folder of a run: its results, is it as configured, and what may go."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import DEFAULT_CONFIG, ConfigFiles
from wsss.pipeline.clean import What

PANEL = "Results"
_STALE, _DAMAGED = 1, 2
RunFolder = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run: results/demo or demo, or the folder that `wsss photos` wrote.",
        show_default=False,
    ),
]


def show(
    folder: RunFolder,
    classes: Annotated[
        bool, typer.Option("--classes", help="Also print each class, alone and with others.")
    ] = False,
) -> None:
    """Print a run's table and the paths of its pictures and report."""
    from wsss.pipeline.photo_run import print_summary
    from wsss.pipeline.run_folder import named_run
    from wsss.score.tables.terminal import print_results

    run = named_run(folder)
    if not print_summary(run) or (run / "tables").is_dir():  # photos seldom have truth
        print_results(run, classes=classes)


def verify(
    run: RunFolder,
    config: ConfigFiles = DEFAULT_CONFIG,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read no pixel, no item of a shard and no photograph.")
    ] = False,
) -> None:
    """Say what is stale, damaged or missing in a run, or in the folder of `wsss photos`, and why.

    Each artifact is compared with the configuration, the code, package versions and the content of
    its inputs. Exit code 0: all as configured. 1: something is stale. 2: something is
    damaged or missing.
    """
    from wsss.config.load import merged_yaml
    from wsss.pipeline.photo_run import is_of_photos, run_on_photos
    from wsss.pipeline.run_folder import PARTS, named_run, not_a_run
    from wsss.pipeline.runs import Runs
    from wsss.pipeline.verify.run import verify as check

    command = _workflow_command(config)
    is_missing = not DEFAULT_CONFIG[0].exists()
    if config == DEFAULT_CONFIG and (is_missing or os.path.isdir(run) or is_of_photos(Path())):
        folder = named_run(run)
        if photos := run_on_photos(folder):
            run, command = folder.name, shlex.join(photos.command())
            os.chdir(photos.out)
        elif is_missing and not any((folder / name).is_dir() for name in PARTS):
            raise not_a_run(folder)
    where = ", ".join(map(str, config))
    findings = check(Runs(merged_yaml(*config), where=where), run, quick=quick)
    for finding in findings:
        typer.echo(finding.text(command))
    if not findings:
        typer.echo(f"{findings.checked} artifacts, all as configured")
        return
    rules = dict.fromkeys(finding.rule for finding in findings if finding.rule)
    again = f" To make them again: {command} --forcerun {' '.join(rules)}" if rules else ""
    typer.echo(f"{findings.checked} artifacts, {len(findings)} of them not as configured.{again}")
    stale = all(finding.status == "stale" for finding in findings)
    raise typer.Exit(_STALE if stale else _DAMAGED)


def clean(
    run: RunFolder,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Delete nothing, but say what would go.")
    ] = False,
    what: Annotated[
        What,
        typer.Option(
            help="work: states of finished trainings. cache: what reruns take over. all: both."
        ),
    ] = "work",
) -> None:
    """Delete what no result needs: states of finished trainings, caches, temporary files.

    Nothing reruns because of it. A training that reruns later starts at its first step,
    and a stage without its cache computes every image again.
    """
    from wsss.pipeline import clean as cleaning
    from wsss.pipeline.run_folder import named_run

    entries = (cleaning.entries if dry_run else cleaning.clean)(named_run(run), what)
    for entry in entries:
        verb = "stays" if entry.stays else "would go" if dry_run else "deleted"
        typer.echo(f"{entry.path}: {verb}, {entry.size / 2**20:.1f} MiB: {entry.why}")
    size = sum(entry.size for entry in entries if not entry.stays)
    typer.echo(f"{size / 2**20:.1f} MiB {'would be freed' if dry_run else 'freed'}")


def _workflow_command(config: list[Path]) -> str:
    """The command that runs the workflow with the same configuration."""
    overlays = [str(path) for path in config if path not in DEFAULT_CONFIG]
    return shlex.join(
        ["snakemake", "--cores", "all", *(["--configfile"] if overlays else []), *overlays]
    )


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (show, verify, clean):
        app.command(rich_help_panel=PANEL)(command)
