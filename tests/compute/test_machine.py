"""What a process sets up for itself."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import resource, sys, torch
sys.argv = ["wsss", "--version"]
from wsss.__main__ import main
try:
    main()
except SystemExit:
    pass
def tensors(count):
    for _ in range(count):
        torch.ones(10_000_000)
tensors(40)  # the first ones leave holes that are too small for the next
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
tensors(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_SET = ("MALLOC_", "GLIBC_TUNABLES")


def _new_pages(**variables: str) -> int:
    """Pages that the system gives to a command for twenty tensors of 40 MB."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SET)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, env=environment | variables, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    return int(done.stdout.splitlines()[-1])


def _keeps_large_parts() -> bool:
    library, version = platform.libc_ver()
    return library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)


@pytest.mark.slow
@pytest.mark.skipif(not _keeps_large_parts(), reason="needs glibc 2.35")
def test_a_command_takes_the_memory_that_it_freed_unless_a_variable_says_otherwise() -> None:
    assert 10 * _new_pages() < _new_pages(MALLOC_TRIM_THRESHOLD_="131072")


@pytest.mark.slow
@pytest.mark.parametrize(("given", "count"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_of_a_command_wait_briefly(given: dict[str, str], count: str) -> None:
    program = (
        "import sys; sys.argv = ['wsss', '--version']\n"
        "from wsss.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: import torch\n"
    )
    unset = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True,
        env=environment | given | {"OMP_DISPLAY_ENV": "verbose"},
    )  # fmt: skip
    assert f"GOMP_SPINCOUNT = '{count}'" in done.stderr, done.stderr
