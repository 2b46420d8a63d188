"""The folder of a run, however a person names it."""

from __future__ import annotations

import os
from pathlib import Path

from wsss.artifacts.errors import ArtifactError

PARTS = ("manifest", "cams", "scores", "logs")
"""A run, or the parent of several, has one of these folders."""
_RESULTS = "results"


def run_folder(folder: Path, *parts: str) -> Path:
    """The folder of one run: the one that is given, or the only one in its ``results``.

    Args:
        folder: ``results/<name>``, or the folder that has ``results``, as `wsss photos` writes it.
        parts: folders of which a run below ``results`` must have one; by default `PARTS`.

    Raises:
        ArtifactError: there is no such folder, or it holds several runs.
    """
    if not os.path.isdir(folder):  # False of overlong names, too
        raise ArtifactError(
            f"{folder}: no such folder; pass the results of a run, e.g. results/demo"
        )
    runs = {
        path.parent for part in parts or PARTS for path in (folder / _RESULTS).glob(f"*/{part}")
    }
    if len(runs) > 1:
        names = ", ".join(map(str, sorted(runs)))
        raise ArtifactError(f"{folder}: holds {len(runs)} runs; name one of them: {names}")
    return next(iter(runs), folder)


def not_a_run(folder: Path) -> ArtifactError:
    """The error of a folder that is there, but is not that of a run."""
    return ArtifactError(
        f"{folder}: is not the folder of a run; pass results/<name>, or the folder that `wsss "
        "photos` wrote"
    )


def named_run(text: str) -> Path:
    """The folder of a run, of which the name is enough where ``results`` lies.

    Args:
        text: ``demo`` or ``results/demo``; or as in `run_folder`.

    Raises:
        ArtifactError: there is no such folder, or it holds several runs.
    """
    name = Path(run_name(text))
    here = Path(_RESULTS) / name
    # A path that leads out of the working folder says where the run is; below results it would be
    # another one.
    if name.parts and ".." not in name.parts and os.path.isdir(here):
        return here
    return run_folder(Path(text))


def run_name(text: str) -> str:
    """The name of a run: ``results/demo/``, ``/project/results/demo`` or ``demo`` → ``demo``."""
    path = Path(os.path.relpath(text)) if os.path.isabs(text) else Path(os.path.normpath(text))
    parts = path.parts
    return "/".join(parts[1:] if parts[:1] == ("results",) else parts)
