"""What to do about jobs that a cluster ended, said once more when a run is over.

The engine reports each when it happens, among much else, and with Slurm's word for it. Here the
rules are counted and the remedy is named.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

_ENDED = re.compile(
    r"Error in (?:rule|group) (?P<rule>[^\s:]+):?.*?SLURM-job '(?P<job>\d+)' failed, "
    r"SLURM status is: '(?P<state>\w+)'",
    re.DOTALL,
)
_REMEDIES = {
    "TIMEOUT": (
        "came to the end of its time; give it more in the profile or by --set-resources "
        "{rule}:runtime=MINUTES (a training goes on from its last checkpoint)"
    ),
    "OUT_OF_MEMORY": (
        "took more memory than it had asked for; give it more by --set-resources "
        "{rule}:mem_mb=MEGABYTES, or less to do at once by compute.batch and --set-threads"
    ),
    "CANCELLED": "was cancelled, by a person or by the cluster; run the same command again",
    "NODE_FAIL": "lost its node; run the same command again",
    "PREEMPTED": "had to make room for another; run the same command again",
}


def explain_failures(log: str) -> str:
    """A line for each rule and way in which Slurm ended jobs of it; empty for none.

    Args:
        log: what the engine wrote.
    """
    found: Counter[tuple[str, str]] = Counter()
    for block in re.split(r"(?=Error in (?:rule|group) )", log):
        if match := _ENDED.match(block):
            found[match["rule"], match["state"]] += 1
    lines = []
    for (rule, state), count in found.items():
        if state in _REMEDIES:
            jobs = "a job" if count == 1 else f"{count} jobs"
            lines.append(f"{rule}: {jobs} ({state}) - {_REMEDIES[state].format(rule=rule)}")
    return "\n".join(lines)


def explain_log(path: str | None) -> str:
    """The same of a file; empty where there is none."""
    if path is None or not Path(path).is_file():
        return ""
    return explain_failures(Path(path).read_text(encoding="utf-8", errors="replace"))
