"""`kill -9` of the workflow engine at random moments, and two engines at once.

`WSSS_ENGINE_KILLS` is how many of them.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wsss.artifacts.shard import Shard

from .conftest import ENGINE, RUN, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
KILLS = int(os.environ.get("WSSS_ENGINE_KILLS", "1"))
_TARGETS = (f"results/{RUN}/scores_grid/train/1-of-2.h5", f"results/{RUN}/masks/train/1-of-2.h5")
_LOGS = ("logs/refine_apply/train.1-of-2.log", "logs/masks/train.1-of-2.log")
_PATIENCE = 60.0


def test_killed_engines(
    finished: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path / "copy")
    shutil.copytree(finished.root, project.root)
    assert not project.would_run(*_TARGETS), "a copy of a finished folder is not finished"
    expected = [_content(project, target) for target in _TARGETS]
    moments, ended = random.Random("engine"), 0
    _clear(project)
    for index in range(KILLS):
        if _finished_one(project):
            _clear(project)
        _forget_jobs(project)
        engine = _start(project)
        if index % 2 == 0:  # every other time until a job runs
            assert _patiently(lambda: _job_runs(project))
        # At the latest before the last job, so that the next engine has something to do.
        _patiently(lambda: _finished_one(project), moments.uniform(0.1, 6.0))
        engine.send_signal(signal.SIGKILL)
        assert engine.wait() in {0, -signal.SIGKILL}
        before = _artifacts(project)
        ended += _wait_for_orphans(engine.pid)
        assert _artifacts(project) == before, "an orphan wrote after its engine was gone"
        for target, content in zip(_TARGETS, expected, strict=True):
            if (project.root / target).exists():
                assert _content(project, target) == content

    _forget_jobs(project)
    first = _start(project)  # continues where the last one was killed
    assert _patiently(lambda: _job_runs(project)), "the lock is complete before the first job"
    first.send_signal(signal.SIGSTOP)  # so that it does not end meanwhile
    second = project.snakemake(*_TARGETS, check=False)
    first.send_signal(signal.SIGCONT)
    assert second.returncode != 0
    assert "cannot be locked" in second.stdout + second.stderr
    assert first.wait() == 0
    assert [_content(project, target) for target in _TARGETS] == expected
    with capsys.disabled():
        print(
            f"\n{KILLS} kills of the engine: {ended} processes of its jobs ended with it, none "
            "wrote; the resumed run has the digests of an undisturbed one, a second engine was "
            "refused"
        )


def _start(project: Project) -> subprocess.Popen[bytes]:
    """The engine in a new session."""
    ours = ("PYTHONPATH", "WSSS_ENGINE_PID", "WSSS_ENGINE_HOST")
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    return subprocess.Popen(
        [ENGINE, "--configfile", "tiny.yaml", "--cores", "2", *_TARGETS],
        cwd=project.root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _clear(project: Project) -> None:
    """Remove the targets and what would save their stages the work."""
    for target in _TARGETS:
        path = project.root / target
        path.unlink(missing_ok=True)
        shutil.rmtree(path.parent / ".cache", ignore_errors=True)


def _forget_jobs(project: Project) -> None:
    for log in _LOGS:
        (project.results / log).unlink(missing_ok=True)


def _job_runs(project: Project) -> bool:
    return any((project.results / log).exists() for log in _LOGS)


def _finished_one(project: Project) -> bool:
    return (project.root / _TARGETS[0]).exists()


def _patiently(holds: Callable[[], bool], seconds: float = _PATIENCE) -> bool:
    """Wait until a condition holds, or for some seconds."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def _content(project: Project, target: str) -> str:
    with Shard(project.root / target) as shard:
        assert len(list(shard)) == len(shard)
        return shard.content


def _artifacts(project: Project) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every finished file, logs aside."""
    artifacts = {}
    for path in project.results.rglob("*"):
        inner = path.relative_to(project.results)
        if path.is_file() and ".tmp-" not in str(inner) and inner.parts[0] != "logs":
            stat = path.stat()
            artifacts[str(inner)] = (stat.st_ino, stat.st_mtime_ns)
    return artifacts


def _wait_for_orphans(session: int) -> int:
    """Wait until all processes of a session are gone; gives how many there were."""
    there = _session(session)
    gone = _patiently(lambda: not _session(session))
    assert gone, "processes outlived the engine that started them"
    return len(there)


def _session(leader: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != leader:
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                members.append(int(entry.name))
    return members
