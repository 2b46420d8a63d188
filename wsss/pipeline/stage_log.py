"""What a stage wrote into its log: progress, warnings and, where it failed, why."""

from __future__ import annotations

import logging
import re
from pathlib import Path

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TRACEBACK = "Traceback (most recent call last):"
_WARNING = "warning: "


class LogFormatter(logging.Formatter):
    """Messages of the command line: ``warning: …`` for a warning of ours, others as they are.

    What other packages warn of stays as they write it, so that a screen can leave it in the log.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`; further lines of a warning are indented."""
        text = super().format(record)
        if record.levelno == logging.WARNING and record.name.partition(".")[0] == "wsss":
            return _WARNING + printable(text)
        return text


def printable(text: str) -> str:
    """A message without what a terminal would obey: names of files may hold escape sequences.

    Its further lines are indented, so that one can see in a log where it ends.
    """
    plain = "".join(
        c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
    return re.sub(r"\n(?=\S)", "\n  ", plain)


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
    if errors := _messages(text, "error: "):
        return errors[-1]
    written = [line for line in text.splitlines() if line.strip()]
    if _TRACEBACK in text and written:
        return f"error: unexpected: {written[-1]} (its log has the traceback)"
    return ""


def warnings(text: str) -> list[str]:
    """What a stage warned of, from the text of its log: ``warning: …`` with its indented lines."""
    return _messages(text, _WARNING)


def _messages(text: str, start: str) -> list[str]:
    """Lines that begin with ``start``, each with the lines that are indented below it."""
    messages: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith(start):
            messages.append([line])
            inside = True
        elif inside and line.startswith(" "):
            messages[-1].append(line)
        else:
            inside = False
    return ["\n".join(lines) for lines in messages]
