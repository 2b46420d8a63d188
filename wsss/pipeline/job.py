"""What a job was given by the engine that started it: the values of its stage, and its code.

The variable ``WSSS_JOB`` names the file; the processes that a job starts inherit it. A process runs
no other code of the stage than the engine saw: it compares all of it when it starts, and each
module again when it is imported, in its worker processes too. So neither an output nor a cache
nor the state of a training can come from code that was edited in between.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import wsss
from wsss.artifacts.code_digest import first_digest, source_digest, source_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.stage import STAGES
from wsss.artifacts.staleness import differing_values
from wsss.compute.pool import call_first
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.errors import WsssError
from wsss.pipeline.stages import stage_modules

JOB_VARIABLE = "WSSS_JOB"
START_AGAIN = "start the same command again"
_DIGITS = 16
_MOST = 5  # changed modules that are named


class EngineChangedError(WsssError):
    """What a job finds is not what its engine saw; the message says what changed."""


@dataclass(frozen=True)
class Job:
    """What the engine hands to a job."""

    stage: str
    sections: Mapping[str, Any]
    """The values that the stage reads, in nested sections."""
    code: Mapping[str, str]
    """Digest of each module of the stage, by its name."""
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of some stages: inputs, by product. There may be too many of them for a command line."""

    def text(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1)

    def config(self, stage: str, **compute: Any) -> Config:
        """The configuration behind its sections.

        Args:
            stage: the stage that asks for it.
            compute: the fields of the section `compute`.

        Raises:
            ConfigError: it is a job of another stage, or its values are not what that declares.
        """
        if stage != self.stage:
            raise ConfigError(f"{JOB_VARIABLE}: is a job of {self.stage}, not of {stage}")
        expected = sorted({key.partition(".")[0] for key in STAGES[stage].reads})
        if sorted(self.sections) != expected:
            raise ConfigError(
                f"{JOB_VARIABLE}: sections of {stage}: found {sorted(self.sections)}, expected "
                f"{expected}"
            )
        values = {**self.sections, "compute": compute}
        return from_mapping(values, where=JOB_VARIABLE, partial=True)


def job_of(
    stage: str,
    config: Config,
    rows: Mapping[str, Any] | None = None,
    files: Mapping[str, Sequence[str]] | None = None,
) -> Job:
    """What the jobs of a stage are given.

    Args:
        config: the configuration of the run.
        rows: instead of values of the configuration: the files of records of each row of a table.
        files: see `Job`.
    """
    sections = STAGES[stage].values(config) if rows is None else rows
    return Job(stage, sections, stage_modules(stage, config), files or {})


def job_changes(old: Job, new: Job, config: Config) -> list[str]:
    """How a stage is given other values or other code than the last time, for people.

    Args:
        old: what it was given then.
        new: what it is given now.
        config: the configuration of the run now.
    """
    changes = []
    for key, value in STAGES[new.stage].watched(config).items():
        before: Any = old.sections
        for part in key.split("."):
            before = before.get(part, {}) if isinstance(before, Mapping) else {}
        if before != {}:
            differing = differing_values(key, before, value)
            changes += [f"{name}: {text} -> {now}" for name, text, now in differing]
    names = sorted(old.code.keys() | new.code.keys())
    modules = [name for name in names if old.code.get(name) != new.code.get(name)]
    if modules:
        more = f" and {len(modules) - _MOST} more modules" if len(modules) > _MOST else ""
        changes.append(f"code of {', '.join(modules[:_MOST])}{more}")
    return changes


def given_files(product: str, typed: Sequence[Path]) -> Sequence[Path]:
    """Input files of a command: those of its command line, or without any those of its job.

    Args:
        product: its name in `Job.files`.
        typed: on the command line.
    """
    job = current_job()
    return typed or [Path(path) for path in (job.files.get(product, ()) if job else ())]


def current_job() -> Job | None:
    """The job that this process does; none by hand.

    Raises:
        ArtifactError: its file is missing, damaged, or no job.
    """
    name = os.environ.get(JOB_VARIABLE)
    return read_job(Path(name)) if name else None


@functools.cache
def read_job(path: Path) -> Job:
    """A job from its file.

    Raises:
        ArtifactError: it is missing, damaged, or no job.
    """
    try:
        return Job(**json.loads(read_named(path)))
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path}: is no job of this version ({error}); {START_AGAIN}") from None


def named_by_digest(folder: Path, name: str, text: str) -> Path:
    """The path of a file whose name holds its digest, for `read_named`."""
    return folder / f"{name}-{_digest(text.encode())}.json"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def read_named(path: Path) -> str:
    """The text of a file that is named by its digest.

    Raises:
        ArtifactError: it is missing or does not match its name.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error.strerror}); the engine writes it before it starts "
            f"the job; {START_AGAIN}"
        ) from None
    if _digest(content) != path.stem.rpartition("-")[2]:
        raise ArtifactError(
            f"{path}: does not match its digest: it is damaged or was edited; {START_AGAIN}"
        )
    return content.decode()


def refuse_other_code(job: Job) -> None:
    """From now on this process runs no other code of the stage than the engine saw.

    Raises:
        EngineChangedError: some of it changed already.
    """
    guard = _CodeGuard(job)
    guard.check_all()
    sys.meta_path.insert(0, guard)
    call_first(refuse_other_imports)


def refuse_other_imports() -> None:
    """The same for a worker process: what it imports is checked when it is imported."""
    if job := current_job():
        sys.meta_path.insert(0, _CodeGuard(job))


class _CodeGuard(MetaPathFinder):
    """Is asked before each import; finds nothing itself."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._checked: dict[str, tuple[int, ...]] = {}

    def check_all(self) -> None:
        self._checked = {name: _state(source_file(name)) for name in self._job.code}
        self._check(self._job.code, first_digest)

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname in self._job.code:
            state = _state(source_file(fullname))
            if self._checked.get(fullname) != state:
                self._check([fullname], source_digest)
                self._checked[fullname] = state

    def _check(self, modules: Iterable[str], digest: Callable[[str], str]) -> None:
        changed = []
        for module in modules:
            with suppress(OSError, SyntaxError, ValueError):
                if digest(module) == self._job.code[module]:
                    continue
            changed.append(str(source_file(module).relative_to(Path(wsss.__file__).parents[1])))
        if changed:
            raise EngineChangedError(
                f"code of stage {self._job.stage} changed since the engine started: "
                f"{', '.join(changed)}; {START_AGAIN}"
            )


def _state(path: Path) -> tuple[int, ...]:
    """Another one after each write; empty where there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
