"""What all trainings share: processes, the work folder, the check of the loss, the result.

The work folder has a folder for each training, named by its key. So a training never takes up what
another one left, and going back to earlier settings goes on where they were left.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checkpoint import save_checkpoint
from wsss.artifacts.exclusive_lock import exclusive_lock
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.write_errors import writing
from wsss.compute import distributed

_log = logging.getLogger(__name__)
_KEY_LETTERS = 16
_STATES = re.compile(rf"[0-9a-f]{{{_KEY_LETTERS}}}")
_OTHERS = 2
"""Other trainings whose states stay in a work folder: the most recent ones."""


@contextmanager
def joint_training(work: Path, device: torch.device) -> Iterator[bool]:
    """Train together with the other processes that were launched, if there are any.

    The first process holds the work folder meanwhile, and writes the results.

    Args:
        work: folder of what an interrupted training resumes from.

    Yields:
        Whether this is the first process.

    Raises:
        ArtifactError: another training holds the work folder.
    """
    distributed.join_group(device)
    first = distributed.rank() == 0
    with exclusive_lock(work) if first else nullcontext():
        yield first
    distributed.leave_group()


def state_folder(work: Path, key: str) -> Path:
    """The folder inside a work folder for the states of one training.

    Of other trainings the two most recent are left in theirs, older ones are removed.

    Args:
        work: folder of what interrupted trainings resume from; `joint_training` holds it.
        key: digest of all that decides the result.

    Raises:
        WriteError: it cannot be written.
    """
    folder = work / key[:_KEY_LETTERS]
    if distributed.rank() == 0:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)
        others = [
            path
            for path in work.iterdir()
            if path != folder and path.is_dir() and _STATES.fullmatch(path.name)
        ]
        if others and not any(folder.iterdir()):
            _log.info(
                "%s: holds states of other settings or inputs alone, which stay there; starting "
                "anew",
                work,
            )
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[_OTHERS:]:
            shutil.rmtree(path, ignore_errors=True)
    distributed.barrier()  # the other processes read the folder, too
    return folder


def check_loss(loss: float, step: int, steps: int, section: str) -> None:
    """Stop a training that diverged.

    Args:
        step: its number, from 1.
        section: of the configuration that has its learning rate, for the message.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {step} of {steps}; lower {section}.lr or lengthen "
            f"{section}.warmup"
        )


def write_training(
    out: Path,
    log: Path,
    tensors: Mapping[str, torch.Tensor],
    curve: Mapping[str, Sequence[float]],
    provenance: Provenance,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the loss curve, then the checkpoint; arguments as for `save_checkpoint`."""
    text = curve_csv(curve)
    write_text(log, text)
    outputs = {log.name: hashlib.sha256(text.encode()).hexdigest()}
    save_checkpoint(out, tensors, provenance.model_copy(update={"outputs": outputs}), facts)


def curve_csv(curve: Mapping[str, Sequence[float]]) -> str:
    """A loss curve as CSV: one row per training step, with six digits.

    Args:
        curve: values of each column, of equal length; the column ``step`` (1-based) is put in
            front. Without any column there is just the head ``step,loss``.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["step", *(curve or ["loss"])])
    for step, row in enumerate(zip(*curve.values(), strict=True), start=1):
        writer.writerow([step, *(f"{value:.6g}" for value in row)])
    return buffer.getvalue()
