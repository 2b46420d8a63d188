"""`kill -9` of the workflow engine at random moments, and two engines at once.

`WSSS_ENGINE_KILLS` is how many of them.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from wsss.artifacts.shard import Shard

from .conftest import ENGINE, RUN, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
KILLS = int(os.environ.get("WSSS_ENGINE_KILLS", "1"))
_TARGETS = (f"results/{RUN}/scores_grid/train/1-of-2.h5", f"results/{RUN}/masks/train/1-of-2.h5")
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
    log = project.results / "logs/refine_apply/train.1-of-2.log"
    for index in range(KILLS):
        log.unlink(missing_ok=True)
        engine, deadline = _start(project), time.monotonic() + _PATIENCE
        while index % 2 == 0 and not log.exists() and time.monotonic() < deadline:
            time.sleep(0.02)  # every other time until a job runs
        time.sleep(moments.uniform(0.1, 6.0))
        engine.send_signal(signal.SIGKILL)
        assert engine.wait() in {0, -signal.SIGKILL}
        before = _artifacts(project)
        ended += _wait_for_orphans(engine.pid)
        assert _artifacts(project) == before, "an orphan wrote after its engine was gone"
        for target, content in zip(_TARGETS, expected, strict=True):
            if (project.root / target).exists():
                assert _content(project, target) == content

    log.unlink(missing_ok=True)
    first = _start(project)  # continues where the last one was killed
    deadline = time.monotonic() + _PATIENCE
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)  # the lock is complete before the first job starts
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
    alive = there = _session(session)
    deadline = time.monotonic() + _PATIENCE
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = _session(session)
    assert not alive, "processes outlived the engine that started them"
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
