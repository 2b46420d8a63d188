"""How tests are shared out among the processes of `pytest -n`."""

from __future__ import annotations

import os

import pytest

# Before torch is imported: teams of threads that share cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_RUN_ONCE = ("finished", "undisturbed")
"""Fixtures that run a whole chain: what uses one stays in one process."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """The tests of a file, or of a chain, stay in one process."""
    chains = [name for name in _RUN_ONCE if name in getattr(item, "fixturenames", ())]
    item.add_marker(pytest.mark.xdist_group(next(iter(chains), str(item.path))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: workflows, then what is slow."""
    longest = ("workflow", "slow")
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in longest])
