"""Jobs that fork from a server say and return what the interpreter itself would."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import ENGINE, copy_project
from .jobs import forking, python_of_jobs, run_snakemake

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-m", "wsss", "--version"], 0),
        (["-m", "wsss", "cam"], 2),
        (["-m", "wsss", "config", "check", "-c", "none.yaml"], 1),
        (["-c", "import sys; print(sys.argv); sys.exit(3)", "a b"], 3),
    ],
)
def test_as_the_interpreter(arguments: list[str], code: int, tmp_path: Path) -> None:
    def run(python: str | Path) -> tuple[int, str, str]:
        done = subprocess.run([python, *arguments], cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert run(python_of_jobs()) == run(sys.executable)
    assert run(python_of_jobs())[0] == code


def test_a_killed_client_does_not_end_the_server(tmp_path: Path) -> None:
    """Not before its request, in the middle of it, nor before the answer."""
    address = str(python_of_jobs().with_name("socket"))
    request = json.dumps({"env": {"PYTHONHASHSEED": "9"}}).encode()  # not of this server's start
    head = len(request).to_bytes(8, "big")
    for content in (b"", head[:3], head + request[:5], head + request):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            client.sendall(content)
    done = subprocess.run(
        [python_of_jobs(), "-m", "wsss", "--version"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0


_PROGRAM = """\
import sys
imported = "torch" in sys.modules
import torch
print(sys.argv[1], imported, torch.get_num_threads())
"""
_RULES = """\
import cv2, os, sys
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
os.environ["PYTHONPATH"] = os.getcwd()
rule all:
    input: "1.txt", "2.txt"
rule job:
    output: "{n}.txt"
    threads: lambda wildcards: int(wildcards.n)
    shell: "python -m wsss {wildcards.n} > {output}"
"""


@pytest.mark.parametrize("own_process", [False, True])
def test_jobs_of_an_engine_fork_with_their_threads(tmp_path: Path, own_process: bool) -> None:
    """Not only faster: without this the tests would quietly take the interpreter's way again."""
    (tmp_path / "wsss").mkdir()
    (tmp_path / "wsss/__init__.py").touch()
    (tmp_path / "wsss/__main__.py").write_text(_PROGRAM)
    (tmp_path / "Snakefile").write_text(_RULES)
    arguments = ["--cores", "2"]
    if own_process:
        done = subprocess.run(
            [ENGINE, *arguments], cwd=tmp_path, env=forking(os.environ), capture_output=True,
            text=True,
        )  # fmt: skip
    else:
        done = run_snakemake(arguments, cwd=tmp_path, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"{n}.txt").read_text() for n in (1, 2)] == ["1 True 1\n", "2 True 2\n"]


def test_a_project_is_imported_as_its_sources_are(tmp_path: Path) -> None:
    """Its server forks with the first job; an edit is seen at once, and so is its end."""
    project = copy_project(tmp_path)

    def version() -> str:
        command = [python_of_jobs(), "-m", "wsss", "--version"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    def servers() -> int:
        return len(list(python_of_jobs().parent.glob("socket-*")))

    before, source = servers(), project.root / "wsss/__init__.py"
    text, stat = source.read_text(), source.stat()
    first = version()
    deadline = time.monotonic() + 60
    while servers() == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert version() == first
    source.write_text(re.sub(r'__version__ = ".*"', '__version__ = "edited"', text))
    assert "edited" in version()
    source.write_text(text)
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert version() == first
