"""The last lines of a failed run: which stages failed, why, and what to do.

Snakemake shows the command line of a failed job, and ends with a sentence of its own. The reason
is in the log of the stage.
"""

from __future__ import annotations

import difflib
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from wsss.pipeline.slurm import slurm_remedies
from wsss.pipeline.stage_log import failure_message, read_log

_CLOCKS = 2.0
"""Seconds by which the clock of a file server may be behind."""
_AGAIN = "What is finished stays. Run the same command again to go on."
_LEAST_SPACE = 2**16
"""Bytes without which not even the engine's notes on a job can be written."""
_STOPS = {
    "Terminating processes on user request": f"stopped by Ctrl-C. {_AGAIN}",
    "Will exit after finishing currently running jobs": (
        f"stopped by SIGTERM, after the jobs that were running. {_AGAIN}"
    ),
}
"""What the engine writes when it is stopped, and what follows from it."""


def explain_failure(
    failed: Iterable[tuple[str, str]], engine_logs: Iterable[str], since: float
) -> str:
    """What to show at the end of a run that failed or was stopped.

    Args:
        failed: rule and log of each job that failed for good.
        engine_logs: files that hold what the engine wrote.
        since: when the engine started, in seconds since the epoch; older logs are of earlier runs.

    Returns:
        A paragraph per rule and reason, however many of its jobs failed for it; the last failure is
        the last paragraph.
    """
    engine_logs = list(engine_logs)
    engine_text = "\n".join(map(read_log, engine_logs))
    failed = sorted(failed, key=lambda job: _changed(job[1]))
    rules = {rule for rule, _ in failed}
    remedies = [
        (affected, line) for affected, line in slurm_remedies(engine_text) if affected & rules
    ]
    ended_by_slurm = frozenset[str]().union(*(affected for affected, _ in remedies))
    logs: dict[tuple[str, str], list[str]] = {}
    for rule, log in failed:
        message = failure_message(read_log(log)) if _changed(log) > since - _CLOCKS else ""
        cluster_log = _cluster_log(log, engine_text)
        if not message and (message := failure_message(read_log(cluster_log))):
            log = cluster_log
        if message or rule not in ended_by_slurm:
            logs.setdefault((rule, message or _without_message(log, since)), []).append(log)
    paragraphs = [f"{_title(rule, files)}\n{text}" for (rule, text), files in logs.items()]
    paragraphs += [line for _, line in remedies]
    paragraphs += [text for words, text in _STOPS.items() if words in engine_text]
    return "\n\n".join(paragraphs) or _unexplained(engine_logs)


class Refusals(logging.Handler):
    """Says in the last lines of a run why the engine cannot make what it was asked for.

    Args:
        last_lines: see `say_last`; it takes the message.
        targets: gives the names of rules and the patterns of files that can be asked for.
    """

    def __init__(self, last_lines: list[str], targets: Callable[[], Iterable[str]]) -> None:
        super().__init__(logging.ERROR)
        self._last_lines, self._targets = last_lines, targets

    def emit(self, record: logging.LogRecord) -> None:
        """Explain an error of the engine; a fault here does not hide it."""
        try:
            kind = str(getattr(record, "exception", ""))
            if text := explain_refusal(kind, record.getMessage(), self._targets):
                self._last_lines.append(text)
        except Exception:
            self.handleError(record)


def explain_refusal(kind: str, text: str, targets: Callable[[], Iterable[str]]) -> str:
    """The message about a target that does not exist, or a file that is not there.

    Args:
        kind: the engine's exception, by its name.
        text: what the engine says.
        targets: see `Refusals`.

    Returns:
        Empty for other errors.
    """
    target = re.search(r"No rule to produce (.+) \(if you use", text)
    if kind == "MissingRuleException" and target:
        near = difflib.get_close_matches(target[1], list(targets()), n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        return (
            f"error: {target[1]}: no rule has this name, and none makes such a file with this "
            f"configuration{hint} snakemake --list-target-rules lists the rules"
        )
    rule = re.search(r"^Missing input files.* for rule (\w+):$", text, re.MULTILINE)
    files = text.partition("affected files:\n")[2].split("\n")
    files = [file.strip() for file in files if file.strip()]
    if kind == "MissingInputException" and rule and files:
        more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
        return (
            f"error: {files[0]}: no such file{more}; the rule {rule[1]} reads it, and no rule "
            "makes it. Put it there, or correct the path in the configuration"
        )
    return ""


PAGES_NAMED = "WSSS_PAGES_NAMED"
"""Set by a command that names the result page itself once the engine has ended."""


def say_last(paragraphs: Sequence[str], folder: Path) -> None:
    """Print the last lines of a run: its pages, why it failed, or that its disk is full.

    On a full disk Snakemake may fail at its own files, and then calls no hook.

    Args:
        paragraphs: what `explain_failure` said, if it was asked, or where the pages are.
        folder: the working directory of the run.
    """
    if text := "\n\n".join(paragraphs) or _full_disk(folder):
        print(f"\n{text}", file=sys.stderr)


def _full_disk(folder: Path) -> str:
    """What to show where there is hardly a byte left to write; else nothing."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    if free >= _LEAST_SPACE:
        return ""
    return f"error: {folder}: no space is left on this disk; free some, or choose another. {_AGAIN}"


def _cluster_log(log: str, engine_text: str) -> str:
    """The log of the cluster's job that was to write a stage's log; empty where there is none."""
    line = re.search(rf"^ *log: {re.escape(log)}, (.+?) \(check log", engine_text, re.MULTILINE)
    return line[1] if line else ""


def _title(rule: str, logs: list[str]) -> str:
    times = "" if len(logs) == 1 else f" {len(logs)} times"
    which = "log" if len(logs) == 1 else "last log"
    return f"{rule} failed{times}; {which}: {logs[-1]}"


def _without_message(log: str, since: float) -> str:
    if _changed(log) > since - _CLOCKS:
        return (
            "error: it ended without a message; it may have been killed, for example because memory"
            " ran out. The log shows how far it came"
        )
    return "error: it did not start; the messages above say why"


def _unexplained(engine_logs: list[str]) -> str:
    files = ", ".join(engine_logs) or ".snakemake/log"
    return (
        "error: the messages above say what failed. They are also in "
        f"{files}; the logs of the stages lie in results/<run>/logs"
    )


def _changed(path: str) -> float:
    """When a file last changed, in seconds since the epoch; 0 where there is none."""
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0.0
