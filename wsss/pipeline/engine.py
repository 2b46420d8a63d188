"""What the workflow engine sets up for its jobs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import wsss
from wsss.compute.machine import name_user, this_machine
from wsss.errors import WsssError
from wsss.pipeline.parent_watch import ENGINE_VARIABLE, HOST_VARIABLE, engine_is_elsewhere


def prepare_jobs() -> None:
    """Let jobs run the package that the engine runs, installed or not, and end with the engine."""
    name_user()
    project = Path(wsss.__file__).parents[1]
    # An installed package is found without that, and its folder holds all other packages as well,
    # which an environment of conda has in versions of its own.
    if workflow_folder().parent == project:
        _prepend("PYTHONPATH", project)
    # `python` in a job is the interpreter that runs the engine, its environment active or not;
    # a conda environment of a job, activated later, goes before it.
    _prepend("PATH", Path(sys.executable).parent)
    # An engine that runs inside a cluster's job finds the number of the one that submitted it; here
    # it is the first itself.
    if engine_is_elsewhere():
        os.environ |= {ENGINE_VARIABLE: str(os.getpid()), HOST_VARIABLE: this_machine()}


def workflow_folder() -> Path:
    """The folder of the Snakefile, with rules, presets, profiles and tables.

    It lies next to the package in a source tree, and inside the package after ``pip install``.

    Raises:
        WsssError: the package was copied without it.
    """
    package = Path(wsss.__file__).parent
    for folder in (package / "workflow", package.parent / "workflow"):
        if (folder / "Snakefile").is_file():
            return folder
    raise WsssError(
        f"{package}: the folder workflow is neither in the package nor next to it; "
        "install wsss again, or run the project's folder as a whole"
    )


def cores_problem(cores: str | int | None) -> str:
    """Why an engine cannot run with this many cores; empty where it can.

    Of a number below 1 the engine itself says nothing: no job ever fits, and it waits for ever.

    Args:
        cores: ``all`` or a number, as text or as the engine has it; None where none is asked for.
    """
    text = str(cores)
    if cores is None or text == "all" or (text.isdecimal() and int(text) > 0):
        return ""
    return f"--cores: found {text or 'nothing'}, expected a positive number or all"


def job_container() -> str | None:
    """The image that jobs run in with ``--sdm apptainer``: ``WSSS_CONTAINER``, a file or a URL."""
    return os.environ.get("WSSS_CONTAINER") or None


def _prepend(variable: str, folder: Path) -> None:
    before = os.environ.get(variable, "")
    if before.split(os.pathsep)[0] != str(folder):
        os.environ[variable] = os.pathsep.join(filter(None, [str(folder), before]))
