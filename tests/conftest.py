"""How tests are distributed over the processes of `pytest -n`."""

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Before torch is imported: teams of threads that share cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_SHARED_CHAIN = ("tests/workflow", "tests/faults")
"""Folders whose tests share a chain that takes minutes: each stays in one process."""
_SEPARATE_CHAIN = ("tests/workflow/test_matrix.py", "tests/workflow/test_slurm.py")
"""Files in them with another chain."""


class _ByChain(LoadScopeScheduling):
    """The tests of a chain, else those of a file, to one process."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        folder, _, _ = file.rpartition("/")
        return folder if folder in _SHARED_CHAIN and file not in _SEPARATE_CHAIN else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Instead of `--dist`, whose groups by marker do not know the ids of pytest 9."""
    return _ByChain(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: workflows, then what is slow."""
    longest = ("workflow", "slow")
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in longest])


@pytest.fixture(autouse=True)
def _level_of_messages() -> Iterator[None]:
    """Each test finds the level as it was: a command that a test runs in its process sets it."""
    logger = logging.getLogger("wsss")
    level = logger.level
    yield
    logger.setLevel(level)
