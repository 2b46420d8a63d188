"""Paths in the configuration."""

from __future__ import annotations

import os
from pathlib import Path

SHARED_VARIABLE = "WSSS_SHARED"
SHARED_DEFAULT = "../shared"
PACKAGE_VARIABLE = "WSSS_PACKAGE"
RESULTS = Path("results")
"""All results of the workflow, below the folder in which it runs."""


def expand_path(text: str) -> Path:
    """Expand ``~``, environment variables, ``${WSSS_SHARED}`` (default ``../shared``) and
    ``${WSSS_PACKAGE}`` (the folder of this package); relative paths stay relative.
    """
    folders = {
        SHARED_VARIABLE: os.environ.get(SHARED_VARIABLE, SHARED_DEFAULT),
        PACKAGE_VARIABLE: str(Path(__file__).parent.parent),
    }
    for name, value in folders.items():
        text = text.replace("${" + name + "}", value)
    return Path(os.path.expandvars(text)).expanduser()
