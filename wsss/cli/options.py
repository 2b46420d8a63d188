"""Options that several sub-commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsss._compat.paused_collection import collect_as_usual
from wsss.artifacts.stage import STAGES
from wsss.config.load import load_config
from wsss.pipeline.job import current_job

ConfigFiles = Annotated[
    list[Path],
    typer.Option(
        "--config",
        "-c",
        help="Configuration. Repeat to lay presets over it.",
        show_default="config.yaml",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …, by default compute.device.")]
Precision = Annotated[
    str, typer.Option(help="auto, float32, tf32, bf16, by default compute.precision.")
]
Batch = Annotated[int, typer.Option(help="Images per batch, by default compute.batch.", min=0)]
Workers = Annotated[
    int, typer.Option(help="Decoding or CRF workers, by default compute.workers.", min=0)
]
Cache = Annotated[
    Path, typer.Option(help="Folder for downloads and text embeddings, shared by all jobs.")
]
Refiner = Annotated[
    Path, typer.Option(help="Checkpoint of `wsss refine-train` or `refine-import`.")
]
ManifestDir = Annotated[Path, typer.Option("--manifest", help="Folder that `wsss ingest` wrote.")]
CamShard = Annotated[Path, typer.Argument(help="One CAM shard.", show_default=False)]
SeedShards = Annotated[list[Path], typer.Option(help="Seed shards of the train split (repeat).")]
PngFolder = Annotated[
    Path, typer.Option("--png", help="Folder to write palette PNGs to (label/ and train/).")
]
LossCurve = Annotated[Path, typer.Option("--log", help="Loss curve to write (CSV).")]
WorkFolder = Annotated[
    Path, typer.Option("--work", help="Folder for what an interrupted training resumes from.")
]
Split = Annotated[str, typer.Option(help="train, val or test.")]
Shard = Annotated[
    str, typer.Option(help="Which part of the split, as INDEX-of-COUNT.", metavar="N-of-M")
]

DEFAULT_CONFIG = [Path("config.yaml")]
DEFAULT_CACHE = Path("results/cache")
WHOLE = "1-of-1"


def stage_values(
    stage: str,
    files: list[Path],
    *,
    device: str = "",
    precision: str = "",
    batch: int = 0,
    workers: int = 0,
) -> dict[str, Any]:
    """The keyword arguments of a stage's function: the values that it declares, and ``compute``.

    A stage is given nothing else, so one that reads an undeclared value fails at once instead of
    missing a rerun later.

    Args:
        files: configuration files; the workflow's jobs are given values (`wsss.pipeline.job`).
        device: of the command line; empty for the configured one.
        precision: as ``device``.
        batch: as ``device``; 0 for the configured one.
        workers: as ``batch``.
    """
    collect_as_usual()  # the stage is imported
    options = {"device": device, "precision": precision, "batch": batch, "workers": workers}
    compute = {name: value for name, value in options.items() if value}
    if job := current_job():
        config = job.config(stage, **compute)
    else:
        config = load_config(*files, options={"compute": compute} if compute else None)
    return STAGES[stage].arguments(config)


def parse_shard(text: str) -> tuple[int, int]:
    """``"2-of-4"`` → ``(2, 4)``.

    Raises:
        typer.BadParameter: the text is not of that form.
    """
    index, _, count = text.partition("-of-")
    if index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise typer.BadParameter(f"found {text!r}, expected INDEX-of-COUNT such as 2-of-4")
