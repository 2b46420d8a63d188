"""How tests are shared out among the processes of `pytest -n`."""

from __future__ import annotations

import os

import pytest

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # before torch is imported: teams of threads that share cores wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_RUN_ONCE = "finished"
"""The fixture that runs a whole workflow: what uses it stays in one process."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workflows first, since they take longest; the tests of a file stay in one process."""
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)
    for item in items:
        shared = _RUN_ONCE in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group(_RUN_ONCE if shared else str(item.path)))
