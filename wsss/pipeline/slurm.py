"""Slurm: jobs that an earlier engine left in the queue, and jobs that Slurm ended.

Jobs of a killed engine are no processes of this machine, so they do not end with it. One of them
could finish after the next engine has submitted the same job again, and replace its result with an
older one. So an engine does not start while such jobs are in the queue.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

IGNORED = "WSSS_IGNORE_QUEUE"
"""Set to 1 to run two engines in one folder, for different files."""
_PATIENCE = 60  # seconds
_STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED"
_ENDED = re.compile(
    r"Error in (?:rule|group) (?P<rule>[^\s:]+):?.*?SLURM-job '(?P<job>\d+)' failed, "
    r"SLURM status is: '(?P<state>\w+)'",
    re.DOTALL,
)
_REMEDIES = {
    "TIMEOUT": (
        "reached its time limit; give it more in the profile or by --set-resources "
        "{rule}:runtime=MINUTES (a training resumes from its last checkpoint)"
    ),
    "OUT_OF_MEMORY": (
        "took more memory than it had asked for; give it more by --set-resources "
        "{rule}:mem_mb=MEGABYTES, or less work at once by compute.batch and --set-threads"
    ),
    "CANCELLED": "was cancelled, by a person or by the cluster; run the same command again",
    "NODE_FAIL": "lost its node; run the same command again",
    "PREEMPTED": "had to make room for another; run the same command again",
}


def queued_jobs_message(folder: Path) -> str:
    """Why an engine must not start yet in a folder, before it has submitted anything.

    Args:
        folder: where the engine runs.

    Returns:
        The jobs in the queue and what to do about them; empty without such jobs or without Slurm.
    """
    if os.environ.get(IGNORED) == "1" or shutil.which("squeue") is None:
        return ""
    # The executor plugin starts jobs in the engine's folder, with the rule's name as comment.
    command = ["squeue", f"--user={os.getuid()}", "--noheader", f"--states={_STATES}"]
    try:
        listing = subprocess.run(
            [*command, "--format=%i|%k|%Z"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    rows = [line.strip().split("|", 2) for line in listing.splitlines()]
    rules = {
        row[0]: row[1].removeprefix("rule_").split("_wildcards_")[0]
        for row in rows
        if len(row) == 3 and row[1].startswith("rule_") and Path(row[2]) == folder
    }
    if not rules:
        return ""
    jobs = ", ".join(f"{job} ({rule})" for job, rule in rules.items())
    return (
        f"Slurm still has jobs of an engine that was started earlier in {folder}: {jobs}. They "
        "would write the same files as the jobs of this engine. Wait for them, or cancel them: "
        f"scancel {' '.join(rules)}   ({IGNORED}=1 starts next to an engine that works on other "
        "files)"
    )


def explain_failures(log: str) -> str:
    """One line per rule and per way in which Slurm ended its jobs, with the remedy.

    Args:
        log: what the engine wrote.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for block in re.split(r"(?=Error in (?:rule|group) )", log):
        if match := _ENDED.match(block):
            counts[match["rule"], match["state"]] += 1
    lines = []
    for (rule, state), count in counts.items():
        if state in _REMEDIES:
            jobs = "a job" if count == 1 else f"{count} jobs"
            lines.append(f"{rule}: {jobs} ({state}) - {_REMEDIES[state].format(rule=rule)}")
    return "\n".join(lines)


def explain_logs(paths: Iterable[str]) -> str:
    """`explain_failures` of the engine's log files; empty where there is none."""
    texts = (
        Path(p).read_text(encoding="utf-8", errors="replace") for p in paths if Path(p).is_file()
    )
    return explain_failures("\n".join(texts))
