"""What a process finds on its machine or in its container, and what it sets up for itself."""

from __future__ import annotations

import ctypes
import getpass
import os
import resource
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_OF_MALLOC = ("MALLOC_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MOST_FREED = 1 << 30  # bytes
_LARGEST_PARTS = (1 << 28, 1 << 25)
"""Bytes; what is larger is given back. glibc before 2.35 takes no more than the second number."""
_OPEN_FILES = 65_536  # of a limit of billions, programs that close every number would take minutes


def this_machine() -> str:
    """Where numbers of processes mean the same: the host, and the name space of a container."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        space = ""
    return f"{socket.gethostname()} {space}"


def this_boot() -> str:
    """The same, from one start of the machine to the next.

    Other machines may run containers of the same host name, whose name spaces are numbered alike.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:  # no Linux
        boot = ""
    return f"{this_machine()} {boot}"


def output_of(command: Sequence[str], seconds: float) -> str:
    """What a command writes; empty where it is missing, fails, or takes longer than that."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees for its next tensors, about a gigabyte.

    glibc gives large parts back at once and asks for new ones with each tensor. The system clears
    these first, which takes 7 % of a training step on a CPU. Nothing changes with other C
    libraries, or where a variable of its allocator (``MALLOC_…``, ``GLIBC_TUNABLES``) is set.
    """
    if any(name.startswith(_OF_MALLOC) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # The second limit alone would make things worse: all parts above 128 KiB would be new memory.
    if mallopt and any(mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_PARTS):
        mallopt(_M_TRIM_THRESHOLD, _MOST_FREED)


def wait_briefly() -> None:
    """Let threads of one team that wait for each other sleep soon, before torch is imported.

    libgomp lets them count to 300,000, which keeps the cores from those that they wait for where
    other work runs. This is its own number where threads outnumber cores. On idle cores it costs a
    few per cent. Nothing changes where ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT`` is set.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def allow_open_files() -> None:
    """Raise this process's limit on open files as far as it may; 1024 is the usual one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with suppress(OSError, ValueError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def name_user() -> None:
    """Give the user a name where there is none: in a container, ``docker run --user`` names none.

    Snakemake and torch ask for it.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"user-{os.getuid()}"
