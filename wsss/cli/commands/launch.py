"""Start a training in several processes, one per GPU, by torchrun."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from wsss.compute.cuda import torch_has_cuda
from wsss.compute.device import cpu_warning, cuda_failure, unusable
from wsss.compute.gpus import (
    HELD,
    VISIBLE,
    claim_gpus,
    held_over_exec,
    refuse_parts,
    release_gpus,
    signs_of_gpus,
    visible_gpus,
)
from wsss.compute.workers import cores

_log = logging.getLogger(__name__)
TOGETHER = ("retrain", "refine-train")
"""Sub-commands whose processes share each batch; every other one runs in one process."""


def register(app: typer.Typer, panel: str) -> None:
    """Add the command, which starts other commands of the same application."""

    @app.command(
        rich_help_panel=panel,
        # all options after the sub-command's name are for the sub-command
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    def launch(
        command: Annotated[
            list[str], typer.Argument(help="The sub-command and its options.", show_default=False)
        ],
        processes: Annotated[
            int,
            typer.Option(help="One per GPU. 0 and 1 start the command as it is.", min=0),
        ] = 1,
    ) -> None:
        """Run a training in several processes here: `wsss launch --processes 4 retrain …`.

        They share each batch, so that the batch stays what the configuration says.
        """
        if processes < 2:
            app(args=command, prog_name="wsss")
            return
        if command[0] not in TOGETHER:
            raise typer.BadParameter(
                f"{command[0]} runs in one process; {' and '.join(TOGETHER)} can run in several"
            )
        device = _device(command)
        if device in ("auto", "cuda") and torch_has_cuda() and (gpus := visible_gpus()):
            chosen = claim_gpus(refuse_parts(gpus, f"{processes} processes were"), processes)
            os.environ |= {VISIBLE: ",".join(gpu.name for gpu in chosen), HELD: "1"}
            if failure := cuda_failure():
                if device == "cuda":
                    raise unusable(device, failure)
                _log.warning(cpu_warning(signs_of_gpus(), failure))
                release_gpus()
                os.environ[VISIBLE] = ""  # the processes need not look again
            held_over_exec()
        # torchrun would leave each with one thread, also for what comes before the training.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun += ["--nproc-per-node", str(processes), "-m"]
        # After `--`, or torchrun would take our `--log` for the start of its own option.
        os.execv(sys.executable, [*torchrun, "--", "wsss", *command])


def check_processes(arguments: list[str]) -> None:
    """Refuse to do the same work several times over.

    Args:
        arguments: of the command line, the sub-command first.

    Raises:
        ValueError: several processes were launched for what runs in one.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1" and arguments and arguments[0] not in TOGETHER:
        raise ValueError(
            f"{processes} processes of `wsss {arguments[0]}` were launched, which would all do the "
            f"same and write the same files; launch one ({' and '.join(TOGETHER)} can share work)"
        )


def _device(command: list[str]) -> str:
    for index, word in enumerate(command):
        if word == "--device" and command[index + 1 :]:
            return command[index + 1]
        if word.startswith("--device="):
            return word.partition("=")[2]
    return "auto"
