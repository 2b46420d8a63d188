"""Jobs that an engine which was killed left in Slurm's queue.

They are no processes of this machine, so they do not end with their engine. One of them could
finish after the next engine has sent the same job again, and replace what that made, perhaps of an
older configuration.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

IGNORED = "WSSS_IGNORE_QUEUE"
"""Set to 1 by a person who runs two engines in one folder, for different files."""
_PATIENCE = 60  # seconds
_STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED"


def queued_jobs_message(folder: Path) -> str:
    """Why an engine must not start yet in a folder, before it has submitted anything.

    Args:
        folder: where the engine runs.

    Returns:
        What is in the queue and what to do about it; empty where there is nothing, or no Slurm.
    """
    if os.environ.get(IGNORED) == "1" or shutil.which("squeue") is None:
        return ""
    # The executor plugin starts jobs in the engine's folder, with the rule's name as comment.
    command = ["squeue", f"--user={os.getuid()}", "--noheader", f"--states={_STATES}"]
    try:
        said = subprocess.run(
            [*command, "--format=%i|%k|%Z"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    rows = [line.strip().split("|", 2) for line in said.splitlines()]
    found = {
        row[0]: row[1].removeprefix("rule_").split("_wildcards_")[0]
        for row in rows
        if len(row) == 3 and row[1].startswith("rule_") and Path(row[2]) == folder
    }
    if not found:
        return ""
    jobs = ", ".join(f"{number} ({rule})" for number, rule in found.items())
    return (
        f"Slurm still has jobs of an engine that was started earlier in {folder}: {jobs}. They "
        "would write the same files as those of this one. Wait for them, or cancel them: scancel "
        f"{' '.join(found)}   ({IGNORED}=1 starts beside an engine that is at work on other files)"
    )
