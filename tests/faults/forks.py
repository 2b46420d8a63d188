"""A process that imports the stages once and then forks: `wsss …` without seconds of imports.

A child is `python -m wsss …` after its imports, with its commands built, in a new session, with
its output in a file. It can be killed at a chosen moment, and given a limit on the size of files.
The server is a separate, single-threaded process without the test run's import hooks. It reads
requests as lines of JSON and answers each with one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
_IMPORTED = (
    "wsss.__main__", "wsss.cams.stage", "wsss.cams.clip_sources", "wsss.masks.stage",
    "wsss.masks.seeds_stage", "wsss.score.submission", "wsss.refine.stage", "wsss.refine.predict",
    "wsss.refine.weclip.method", "wsss.refine.released.importer", "wsss.retrain.train",
    "wsss.retrain.predict", "wsss.data.ingest.stage", "wsss.demo.dataset", "wsss.score.stage",
    "wsss.score.figures.contact_sheet", "wsss.score.figures.curves", "wsss.score.tables.write",
    "wsss.score.tables.comparison", "wsss.score.papers.render", "wsss.score.tables.efficiency",
    "wsss.score.truth.mask_tags", "wsss.score.truth.coco_masks", "wsss.score.truth.sbd_masks",
    "wsss.score.page.build", "torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp",
    "mmseg.evaluation.metrics", "yapf",
)  # fmt: skip
# Data this small would start no pool of processes, which these tests are about.
_POOLS = {
    "wsss.masks.store": {"_PIXELS_WORTH_A_PROCESS": 1},
    "wsss.data.images.decode": {"_BYTES_WORTH_A_POOL": 0},
    "wsss.score.metrics.parallel": {"_PARTS_WORTH_A_POOL": 1},
    "wsss.score.inputs": {"_IMAGES_PER_PART": 3},
    "wsss.score.truth.mask_tags": {"_MASKS_WORTH_A_POOL": 1},
    "wsss.score.truth.coco_masks": {"_IMAGES_WORTH_A_POOL": 1, "_IMAGES_PER_JOB": 2},
}
_TIDY = False
_PATIENCE = 30.0  # seconds for workers of a dead process to end
_TOO_LONG = 300.0  # seconds after which a run counts as hanging


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    code: int
    """Exit status; negative: the signal."""
    seconds: float
    output: str
    survivors: int
    """Its processes that still ran `_PATIENCE` after its end; they were killed."""
    workers: int
    """Its processes that were alive when it ended."""
    late: list[str]
    """Files in the watched folder that changed between its end and that of the last of these."""


class Forks:
    """The server; use as a context manager.

    Args:
        cwd: where the children run.
    """

    def __init__(self, cwd: Path) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg",
        }  # fmt: skip
        environment.pop("WSSS_ENGINE_PID", None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            cwd=cwd, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self,
        argv: Sequence[str],
        *,
        kill_after: float | None = None,
        limit: int | None = None,
        pools: bool = False,
        watch: Path | None = None,
        tidy: bool = False,
    ) -> Done:
        """Run one command.

        Args:
            argv: of ``wsss``.
            kill_after: seconds after which it gets SIGKILL.
            limit: bytes that a file may have (RLIMIT_FSIZE).
            pools: start worker processes, however small the work is.
            watch: folder that must not change once the process is dead.
            tidy: let the interpreter shut down as usual, instead of exiting at once.
        """
        return self.run_all(
            [argv], kill_after=kill_after, limit=limit, pools=pools, watch=watch, tidy=tidy
        )[0]

    def run_all(self, argvs: Sequence[Sequence[str]], **options: Any) -> list[Done]:
        """Run commands at once; see `run`."""
        request = {"argvs": [list(map(str, argv)) for argv in argvs], **options}
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        return [Done(**answer) for answer in json.loads(self._process.stdout.readline())]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answer requests until standard input ends; in a child, return to run on as `wsss`."""
    import gc
    import importlib

    for name in _IMPORTED:
        importlib.import_module(name)
    import torch

    from tests.forked_program import prepare
    from wsss.artifacts.provenance import package_versions
    from wsss.score.commit import project_commit

    torch.set_num_threads(1)
    project_commit()
    package_versions()
    prepare(sys.modules["wsss.__main__"].app)
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        argvs = request.pop("argvs")
        children = []
        for argv in argvs:
            child = _fork(argv, request)
            if child is None:
                return
            children.append(child)
        print(json.dumps([_follow(child, request) for child in children]), flush=True)


def _fork(argv: list[str], options: Mapping[str, Any]) -> tuple[int, float, str] | None:
    """Pid, start and log of a child; None in the child."""
    import resource
    import tempfile
    import time

    descriptor, log = tempfile.mkstemp(prefix="wsss-faults-")
    start = time.monotonic()
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid, start, log
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if options.get("pools"):
        for module, values in _POOLS.items():
            for name, value in values.items():
                setattr(sys.modules[module], name, value)
    if options.get("limit") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["limit"], resource.RLIM_INFINITY))
    global _TIDY
    _TIDY = bool(options.get("tidy"))
    sys.argv = ["wsss", *argv]
    return None


def _follow(child: tuple[int, float, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Wait for a child, or kill it; then wait for its own children."""
    import signal
    import time

    pid, start, log = child
    moment = options.get("kill_after")
    state = 0
    while True:
        ended, state = os.waitpid(pid, os.WNOHANG)
        passed = time.monotonic() - start
        if ended:
            break
        if passed > (_TOO_LONG if moment is None else moment):
            os.kill(pid, signal.SIGKILL)
            _, state = os.waitpid(pid, 0)
            break
        time.sleep(0.001)
    seconds = time.monotonic() - start
    watch = options.get("watch")
    before = _files(watch)
    members = _session(pid)
    workers = len(members)
    while members and time.monotonic() - start - seconds < _PATIENCE:
        time.sleep(0.02)
        members = _session(pid)
    after = _files(watch)
    for member in members:
        os.kill(member, signal.SIGKILL)
    with open(log, errors="replace") as stream:
        output = stream.read()
    os.unlink(log)
    return {
        "code": os.waitstatus_to_exitcode(state), "seconds": seconds, "output": output,
        "survivors": len(members), "workers": workers,
        "late": sorted(name for name, _ in set(before.items()) ^ set(after.items())),
    }  # fmt: skip


def _session(leader: int) -> list[int]:
    """Living processes of a session."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != leader:
            try:
                with open(f"/proc/{name}/stat") as stream:
                    fields = stream.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                members.append(int(name))
    return members


def _files(folder: str | None) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of change of everything below a folder."""
    files = {}
    for parent, _, names in os.walk(folder or os.devnull):
        for name in names:
            path = os.path.join(parent, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            files[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return files


def _run(*, tidy: bool) -> None:
    from tests.forked_program import run_and_end
    from wsss.__main__ import main

    if tidy:
        main()
    else:
        run_and_end(main)


if __name__ == "__main__":
    serve()
    if sys.argv[0] == "wsss":
        _run(tidy=_TIDY)
