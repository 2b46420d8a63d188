"""What an engine decided when it started, and hands to its jobs as files.

Configuration, rules and code can be edited while an engine runs. A result of the edited ones would
count as one of the engine's, which records what it decided itself. So an engine writes down:

- per stage and run: the values and the code of the stage. The job's command names the file
  (`wsss.pipeline.job`) and stays short;
- its plan: the configuration, digests of the rules, and the files of its jobs. A job of a cluster,
  which evaluates the whole workflow once more, follows the plan instead of what lies there by then.

The files lie in ``.snakemake/wsss`` below the engine's folder. A dry run writes none.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsss.artifacts.atomic import write_one_of_many
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.config.model import Config
from wsss.pipeline.job import (
    JOB_VARIABLE,
    START_AGAIN,
    EngineChangedError,
    Job,
    job_changes,
    job_of,
    named_by_digest,
    read_job,
)

PLAN_VARIABLE = "WSSS_ENGINE_PLAN"
"""Names the plan, for the jobs of a cluster."""
_FOLDER = Path(".snakemake", "wsss")
_FORGOTTEN = 30 * 86_400.0  # seconds after which a file that no engine used is removed


class Plan:
    """The plan of this engine, or of the engine that started this one for a job of a cluster.

    Args:
        config: what the engine reads now.
        is_job: whether it was started for a job.

    Raises:
        EngineChangedError: the rules are no longer those of the engine; its plan is missing.
    """

    config: Mapping[str, Any]
    """The configuration of the engine."""

    def __init__(self, config: Mapping[str, Any], rules: Sequence[Path], *, is_job: bool) -> None:
        self._is_job = is_job
        self._rules = {str(path): digest_file(path) for path in rules}
        self._files: dict[str, tuple[str, str]] = {}
        """Path and digest of the configuration, by stage and run."""
        self._texts: dict[str, str] = {}
        """Those that are not written yet."""
        self.config = config
        if is_job:
            self._follow(os.environ.get(PLAN_VARIABLE, ""))
        else:
            os.environ[PLAN_VARIABLE] = ""

    def _follow(self, path: str) -> None:
        try:
            first, *others = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            raise EngineChangedError(
                f"{PLAN_VARIABLE}={path}: cannot be read; either the engine is gone, or the "
                f"cluster does not pass on its environment or folder; {START_AGAIN}"
            ) from None
        self.config, rules = json.loads(first)
        names = sorted(rules.keys() | self._rules.keys())
        if changed := [name for name in names if rules.get(name) != self._rules.get(name)]:
            raise EngineChangedError(
                f"rules of the workflow changed since the engine started: {', '.join(changed)}; "
                f"{START_AGAIN}"
            )
        self._files = dict(map(json.loads, others))

    def file(
        self,
        stage: str,
        run: str,
        config: Config,
        rows: Mapping[str, Any] | None = None,
        files: Mapping[str, Sequence[str]] | None = None,
        *,
        write: bool,
    ) -> str:
        """The path of what the jobs of a stage are given; the engine decides it once.

        Args:
            run: the name of the run.
            config: the configuration of the run.
            rows: see `wsss.pipeline.job.job_of`.
            files: see `wsss.pipeline.job.Job`.
            write: whether a job may need the file from now on.

        Raises:
            EngineChangedError: the configuration is not that of the engine.
            WriteError: it cannot be written.
        """
        name = f"{stage} {run}"
        if self._is_job:
            path, digest = self._files.get(name, ("", ""))
            if digest != _digest(config):
                raise EngineChangedError(
                    f"the configuration of {run} changed since the engine started, e.g. a preset "
                    f"that a table names, or a default in wsss/config; {START_AGAIN}"
                )
            return path
        if name not in self._files:
            text = job_of(stage, config, rows, files).text()
            path = str(named_by_digest(_FOLDER, stage, text))
            self._files[name], self._texts[name] = (path, ""), text
        path, _ = self._files[name]
        if write and name in self._texts:
            _write(Path(path), self._texts.pop(name))
            if not os.environ[PLAN_VARIABLE]:
                self._start()
            _append(name, (path, _digest(config)))
        return path

    def changes(self, path: str, folder: Path, command: str, config: Config) -> list[str]:
        """How what a job is given differs from what it was given the last time, for people.

        Args:
            path: what `file` gave.
            folder: the folder of the engine, which has left it when it ends.
            command: the job's command line of the last time, which names the file of that time.
            config: the configuration of the run now.

        Returns:
            Settings and modules; nothing if that file is gone, as it is after 30 days.
        """
        names = {file: name for name, (file, _) in self._files.items()}
        name = names.get(path, "")
        before = re.search(rf"{JOB_VARIABLE}=(\S+)", command)
        if not before or name not in self._texts:
            return []
        with suppress(ArtifactError):
            now = Job(**json.loads(self._texts[name]))
            return job_changes(read_job(folder / before[1]), now, config)
        return []

    def _start(self) -> None:
        """Begin the file of the plan, which is there while the engine runs."""
        for file in _FOLDER.iterdir():
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > _FORGOTTEN:
                    file.unlink()
        descriptor, path = tempfile.mkstemp(".jsonl", "engine-", _FOLDER.absolute())
        os.close(descriptor)
        atexit.register(Path(path).unlink, missing_ok=True)
        os.environ[PLAN_VARIABLE] = path
        _append(self.config, self._rules)


def _digest(config: Config) -> str:
    return digest_json(config.model_dump(mode="json", exclude={"compute"}))


def _append(*values: Any) -> None:
    with open(os.environ[PLAN_VARIABLE], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(values, default=str) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file that its readers check, so it is not flushed: there are many at once."""
    if path.is_file() and path.read_bytes() == text.encode():
        os.utime(path)  # in use
        return
    write_one_of_many(path, text.encode())
