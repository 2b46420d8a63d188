"""Slurm: jobs that an earlier engine left in the queue, and jobs that Slurm ended.

Jobs of a killed engine are no processes of this machine, so they do not end with it. One of them
could finish after the next engine has submitted the same job again, and replace its result with an
older one. So an engine does not start while such jobs are in the queue.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

from wsss.compute.machine import output_of
from wsss.pipeline.stage_log import read_log

IGNORED = "WSSS_IGNORE_QUEUE"
"""Set to 1 to run two engines in one folder, for different files."""
_PATIENCE = 60  # seconds
_STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED"
_FAILURE = re.compile(
    r"^ *(?:message: )?Error in (?P<kind>rule|group) (?P<name>[^\s:]+)", re.MULTILINE
)
_STATE = re.compile(r"SLURM-job '\d+' failed, SLURM status is: '(\w+)'")
_LOG_FILE = re.compile(r"^ *log: (.+?) \(check log", re.MULTILINE)
_MEMBER = re.compile(r"^ *rule (\w+):$", re.MULTILINE)
_REMEDIES = {
    "TIMEOUT": (
        "reached its time limit; give it more in a copy of the profile (set-resources, runtime in "
        "minutes). A training resumes from its last checkpoint"
    ),
    "OUT_OF_MEMORY": (
        "took more memory than it had asked for; give it more in a copy of the profile "
        "(set-resources, mem_mb in megabytes), or less work at once by compute.batch and "
        "--set-threads"
    ),
    "CANCELLED": "was cancelled, by a person or by the cluster; run the same command again",
    "NODE_FAIL": "lost its node; run the same command again",
    "PREEMPTED": "had to make room for another; run the same command again",
}
_STATES_IN_LOGS = {
    "DUE TO TIME LIMIT": "TIMEOUT",
    "oom_kill": "OUT_OF_MEMORY",
    "OOM Killed": "OUT_OF_MEMORY",
    "DUE TO NODE FAILURE": "NODE_FAIL",
    "DUE TO PREEMPTION": "PREEMPTED",
    "CANCELLED AT": "CANCELLED",
}
"""What slurmstepd writes into a job's log: the engine does not report the state of a group."""


def queued_jobs_message(folder: Path) -> str:
    """Why an engine must not start yet in a folder, before it has submitted anything.

    Returns:
        The jobs in the queue and what to do about them; empty without such jobs or without Slurm.
    """
    if os.environ.get(IGNORED) == "1" or shutil.which("squeue") is None:
        return ""
    # The executor plugin starts jobs in the engine's folder, with the rule's name as comment.
    command = ["squeue", f"--user={os.getuid()}", "--noheader", f"--states={_STATES}"]
    listing = output_of([*command, "--format=%i|%k|%Z"], _PATIENCE)
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


def slurm_remedies(engine_text: str) -> list[tuple[frozenset[str], str]]:
    """Why Slurm ended jobs, and what to do.

    Returns:
        The rules of a job, one or those of a group, and a line on them: once per way in which Slurm
        ended such jobs.
    """
    counts: Counter[tuple[frozenset[str], str]] = Counter()
    starts = [match.start() for match in _FAILURE.finditer(engine_text)]
    for start, end in pairwise([*starts, len(engine_text)]):
        rules, state = _ended(engine_text[start:end])
        if state in _REMEDIES:
            counts[rules, state] += 1
    remedies = []
    for (rules, state), count in counts.items():
        jobs = "a job" if count == 1 else f"{count} jobs"
        names = " + ".join(sorted(rules))
        remedies.append((rules, f"{names}: {jobs} ({state}) - {_REMEDIES[state]}"))
    return remedies


def _ended(block: str) -> tuple[frozenset[str], str]:
    """The rules and Slurm's state of one failure in the engine's log; empty where none is named."""
    failure = _FAILURE.match(block)
    assert failure is not None
    if failure["kind"] == "rule":
        state = _STATE.search(block)
        return frozenset({failure["name"]}), state[1] if state else ""
    log_file = _LOG_FILE.search(block)
    text = read_log(log_file[1]) if log_file else ""
    states = [state for words, state in _STATES_IN_LOGS.items() if words in text]
    return frozenset(_MEMBER.findall(block)), states[0] if states else ""
