"""What a stage wrote into its log: progress, warnings and, where it failed, why."""

from __future__ import annotations

import re
from pathlib import Path

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TRACEBACK = "Traceback (most recent call last):"


def read_log(path: str | Path) -> str:
    """The text of a log without colours; empty where it cannot be read."""
    try:
        return _COLOURS.sub("", Path(path).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def failure_message(text: str) -> str:
    """Why a stage failed, from the text of its log; empty where it does not say.

    That is the last message of the command line: `error: …`, with the lines that are indented
    below it. What other programs write after it, such as torchrun, does not belong to it. An
    exception that the command line does not expect gives the last line of its traceback.
    """
    lines = text.splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    if starts:
        message = lines[starts[-1] :]
        ends = (index for index, line in enumerate(message[1:], 1) if not line.startswith(" "))
        return "\n".join(message[: next(ends, len(message))])
    written = [line for line in lines if line.strip()]
    if _TRACEBACK in text and written:
        return f"error: unexpected: {written[-1]} (its log has the traceback)"
    return ""
