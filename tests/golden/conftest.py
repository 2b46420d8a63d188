"""Shared by the golden tests: the folder of published tensors (tolerances: `closeness`).

The folder is ``WSSS_GOLDEN_DIR``, or ``golden`` below ``WSSS_SHARED`` (default ``../shared``).
Tests read every size from the arrays, so any folder with the same file names and keys will do.
Without the folder they are skipped.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    shared = PROJECT / os.environ.get("WSSS_SHARED", "../shared")
    folder = Path(os.environ.get("WSSS_GOLDEN_DIR", str(shared / "golden")))
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}: set WSSS_GOLDEN_DIR or WSSS_SHARED")
    return folder


@pytest.fixture(scope="session")
def load_golden(golden_dir: Path) -> Callable[[str], Mapping[str, np.ndarray]]:
    """Read a golden ``.npz`` by name; arrays are read on access."""

    def load(name: str) -> Mapping[str, np.ndarray]:
        path = golden_dir / name
        if not path.is_file():
            pytest.skip(f"no golden file {path}")
        return np.load(path)

    return load
