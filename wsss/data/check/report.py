"""The report of a check of a data set: all problems together, names grouped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wsss.data.check.downloads import SOURCES, Source

_MAX_NAMES = 4


@dataclass(frozen=True)
class Problem:
    """Something that is missing or wrong."""

    what: str
    names: tuple[str, ...] = ()
    """All images or lists concerned; the first few are printed."""
    source: Source | None = None
    """The download of what is missing."""

    def __str__(self) -> str:
        if not self.names:
            return self.what
        more = len(self.names) - _MAX_NAMES
        shown = ", ".join(self.names[:_MAX_NAMES])
        return f"{self.what}: {shown}" + (f" and {more} more" if more > 0 else "")


@dataclass
class Report:
    """A check of one data set's folder."""

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    """Name of each list or part, and its counts."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Observations that are no problems."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing or wrong."""
        return not self.problems

    def add(self, what: str, names: Sequence[str] = (), source: Source | None = None) -> None:
        """Note a problem."""
        self.problems.append(Problem(what, tuple(names), source))

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.facts), default=0)
        lines = [self.title, ""]
        lines += [f"  {name:<{width}}  {fact}" for name, fact in self.facts]
        lines += ["", *(f"Note: {note}." for note in self.notes)]
        if self.complete:
            return "\n".join([*lines, "Complete."])
        count = len(self.problems)
        lines.append(f"Not complete: {count} problem{'s' * (count > 1)}.")
        lines += [f"  - {problem}" for problem in self.problems]
        sources = dict.fromkeys(problem.source for problem in self.problems if problem.source)
        if sources:
            lines += ["", "Where to get it:"]
            lines += [f"  - {SOURCES[source]}." for source in sources]
        return "\n".join(lines)
