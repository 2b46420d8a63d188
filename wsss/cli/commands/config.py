"""`wsss config …`: the annotated default, the JSON schema, and a check of one's own."""

from __future__ import annotations

import logging
from itertools import chain

import typer
import yaml

from wsss.cli.files_check import missing_files
from wsss.cli.options import DEFAULT_CONFIG, ConfigFiles
from wsss.cli.weights_check import check_weights
from wsss.compute.device import require_cuda
from wsss.config.load import load_config, merged_yaml
from wsss.config.render import default_yaml, json_schema, reference_markdown

_log = logging.getLogger(__name__)
app = typer.Typer(
    help="The configuration: print its annotated default or schema, check your own.",
    no_args_is_help=True,
)


@app.command()
def default() -> None:
    """Print every key with its default for photographs and its meaning."""
    typer.echo(default_yaml(), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema, for editors that complete and check YAML."""
    typer.echo(json_schema(), nl=False)


@app.command()
def reference() -> None:
    """Print the reference of all keys as Markdown (docs/reference/configuration.md)."""
    typer.echo(reference_markdown(), nl=False)


@app.command()
def check(config: ConfigFiles = DEFAULT_CONFIG) -> None:
    """Check a configuration and print the values that apply, with every `auto` resolved.

    It also checks the runs of a sweep, of `runs` and of a matrix, and the names of weights. It
    warns of data and files that are not here, and counts images without mask proposals where a run
    needs them.
    """
    from wsss.pipeline.runs import Runs

    loaded = load_config(*config)
    where = ", ".join(map(str, config))
    all_runs = Runs(merged_yaml(*config), where=where)
    runs = [all_runs[name].config for name in all_runs.final]
    for run in runs:
        check_weights(run)
    for warning in dict.fromkeys(chain.from_iterable(map(missing_files, runs))):
        _log.warning("%s", warning)
    try:
        require_cuda(loaded.compute.device)
    except ValueError as error:  # jobs may run elsewhere: on a cluster, in a container
        _log.warning("jobs that run here: %s", error)
    typer.echo(
        yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        nl=False,
    )
