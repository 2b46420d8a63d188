"""Shared by the golden tests: the folder of published tensors (tolerances: `closeness`).

The folder is ``WSSS_GOLDEN_DIR``, or ``golden`` below ``WSSS_SHARED`` (default ``../shared``).
Tests read every size from the arrays, so any folder with the same file names and keys will do.
Without the folder they are skipped.

``WSSS_TEST_DEVICE`` is the device of the tests that take one: ``cuda`` for a real GPU, in float32;
``pretended`` for `PretendGpu`; by default the CPU.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.closeness import Arrays
from tests.gpu.pretend import CUDA, PretendGpu
from wsss.compute.precision import computing

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    shared = PROJECT / os.environ.get("WSSS_SHARED", "../shared")
    folder = Path(os.environ.get("WSSS_GOLDEN_DIR", str(shared / "golden")))
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}: set WSSS_GOLDEN_DIR or WSSS_SHARED")
    return folder


@pytest.fixture
def device() -> Iterator[torch.device]:
    """Where a test computes, in float32."""
    name = os.environ.get("WSSS_TEST_DEVICE", "cpu")
    if name == "pretended":
        with PretendGpu():
            yield CUDA
        return
    yield torch.device(name)


@pytest.fixture(scope="module")
def arrays(request: pytest.FixtureRequest, golden_dir: Path) -> Arrays:
    """The ``.npz`` that the module names `GOLDEN`; arrays are read on access."""
    path = golden_dir / request.module.GOLDEN
    if not path.is_file():
        pytest.skip(f"no golden file {path}")
    return np.load(path)


@pytest.fixture(autouse=True)
def _float32() -> Iterator[None]:
    """On a GPU, too, what is compared with published tensors is multiplied in float32."""
    if torch.cuda.is_available():
        with computing("auto", "float32"):
            yield
    else:
        yield
