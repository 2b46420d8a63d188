"""How tests are distributed over the processes of `pytest -n`."""

import functools
import gc
import importlib
import logging
import os
import shutil
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from typing import Any

import jaxtyping._import_hook
import pytest
import slipcover.pytest_plugin
import typer.main
import typer.testing
from xdist.scheduler import LoadScopeScheduling

from tests.medium import function_of, medium_tests

# Before torch is imported: teams of threads that share cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Tests compute on the CPU: a process would hold a GPU for which those that it starts wait.
if shutil.which("nvidia-smi") and os.environ.get("WSSS_TEST_DEVICE", "cpu") != "cuda":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

gc.disable()  # until all tests are collected: what is imported stays

# jaxtyping loads the modules whose shapes are checked, past the line coverage's own import hook.
if (_coverage := slipcover.pytest_plugin._slipcover_instance) is not None:
    jaxtyping._import_hook._JaxtypingLoader.get_code = lambda loader, name: _coverage.instrument(
        SourceFileLoader.get_code(loader, name)
    )

_SHARED_CHAIN = ("tests/workflow", "tests/faults")
"""Folders whose tests share a chain that takes minutes: each stays in one process."""
_SEPARATE = frozenset({
    "affinity", "container", "determinism", "elsewhere", "hostile_config", "jobs", "profiles",
    "second_encoder", "slurm", "tag_noise", "truth_rules",
})  # fmt: skip
"""Files in them that do without that chain."""
_LONGEST = ("tests/workflow", "tests/faults", "tests/processes/test_processes.py")
"""What starts first, so that no process is left alone with it in the end."""


def _scope(nodeid: str) -> str:
    """The tests of a chain, else those of a file."""
    file, _, _ = nodeid.partition("::")
    folder, _, name = file.rpartition("/")
    separate = name.removeprefix("test_").removesuffix(".py") in _SEPARATE
    return folder if folder in _SHARED_CHAIN and not separate else file


class _ByChain(LoadScopeScheduling):
    """The tests of a scope to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Instead of `--dist`, whose groups by marker do not know the ids of pytest 9."""
    return _ByChain(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest scopes first, then other workflows, then what is slow; mark the medium ones."""
    medium = medium_tests()
    for item in items:
        if function_of(item.nodeid) in medium:
            item.add_marker("medium")
    ranks = {scope: rank for rank, scope in enumerate(_LONGEST)}
    markers = ("workflow", "slow")
    items.sort(
        key=lambda item: [
            ranks.get(_scope(item.nodeid), len(ranks)),
            *(item.get_closest_marker(name) is None for name in markers),
        ]
    )


def pytest_collection_finish() -> None:
    """Later collections of garbage pass over packages and tests, which stay to the end."""
    gc.freeze()
    gc.enable()


_build = typer.main.get_command


@functools.cache
def _command_line(application: typer.Typer) -> Any:
    """Its commands, built once in a process: that takes longer than many of them."""
    importlib.import_module("wsss.__main__")  # which adds those of the demo
    return _build(application)


typer.main.get_command = typer.testing._get_command = _command_line


@pytest.fixture(autouse=True)
def _same_variables() -> Iterator[None]:
    """A test leaves the environment as it was, or the jobs of later tests would not fork."""
    before = _variables()
    yield
    for name in _variables().keys() - before:
        del os.environ[name]
    os.environ.update(before)


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(autouse=True)
def _level_of_messages() -> Iterator[None]:
    """Each test finds the levels as they were: commands and benchmarks that it runs set them."""
    levels = {logger: logger.level for logger in map(logging.getLogger, (None, "wsss"))}
    disabled = logging.root.manager.disable
    yield
    logging.disable(disabled)
    for logger, level in levels.items():
        logger.setLevel(level)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of Playwright; without one the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), "")
    if not path:
        pytest.skip("no Chromium here; pages are not opened")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        program = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield program
        program.close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As stages compute on a CPU; tiny tensors gain nothing from threads."""
    from wsss.compute.threads import fixed_threads

    with fixed_threads(1):
        yield
