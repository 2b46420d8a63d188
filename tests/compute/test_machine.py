"""What a process sets up for itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PAGES = 20 * 4_000_000 // 4096
"""Of twenty tensors, each as large as the hidden layer of a few hundred tokens."""
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
        torch.ones(1_000_000)
tensors(20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
tensors(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _new_pages(**variables: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, env=os.environ | variables, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_a_command_takes_the_memory_that_it_freed() -> None:
    assert _new_pages() < _PAGES / 10


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_variables_of_the_c_library_win() -> None:
    assert _new_pages(MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="65536") > _PAGES / 2
