"""Report on every tensor of a file that others published: none is dropped silently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from wsss.artifacts.errors import ArtifactError
from wsss.config.base import Section

COUNTER = "num_batches_tracked"
"""Steps that a batch norm has seen; read by none that has a momentum."""

Status = Literal["unused", "left out", "initialised"]
"""Loaded but without effect; not loaded; not in the file."""


@dataclass(frozen=True)
class Part:
    """One tensor of ours: which of theirs it is made from, and how."""

    sources: tuple[str, ...]
    """Their names."""
    shape: tuple[int, ...]
    """Of each of theirs."""
    make: Callable[[Sequence[Tensor]], Tensor] = lambda theirs: theirs[0]
    more_rows: bool = False
    """Whether theirs may have more rows, of which the first are taken."""

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tensor of theirs has the shape."""
        shape = tuple(tensor.shape)
        if self.more_rows and len(shape) == len(self.shape) and shape[1:] == self.shape[1:]:
            return shape[0] >= self.shape[0]
        return shape == self.shape


@dataclass(frozen=True)
class Group:
    """Tensors that are not simply used, with the reason."""

    status: Status
    why: str
    names: tuple[str, ...]


@dataclass
class ImportReport:
    """What became of every tensor."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Ours, in float32 where they are no integers."""
    used: list[str] = field(default_factory=list)
    """Theirs that these were made from."""
    groups: list[Group] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong, by kind."""

    def add_group(self, status: Status, why: str, names: Iterable[str]) -> None:
        """Add a group, if it has members."""
        if members := tuple(names):
            self.groups.append(Group(status, why, members))

    def add_problems(self, kind: str, lines: Iterable[str]) -> None:
        """Add problems, if there are any."""
        if problems := list(lines):
            self.problems.setdefault(kind, []).extend(problems)

    def raise_if_errors(self, file: Path, remedy: str) -> None:
        """Refuse the file, with everything that is wrong, if there are problems.

        Raises:
            ArtifactError: there are problems.
        """
        if not self.problems:
            return
        lines = [f"{file}: cannot be imported; nothing was written"]
        for kind, problems in self.problems.items():
            lines += [f"  {kind} ({len(problems)}):", *(f"    {line}" for line in problems)]
        raise ArtifactError("\n".join([*lines, remedy]))

    def text(self, most: int | None = None) -> str:
        """For a person to read, with at most ``most`` names per group."""
        lines = [f"{len(self.used)} tensors became {len(self.tensors)} of ours"]
        for group in self.groups:
            lines.append(f"{group.status}, {len(group.names)}: {group.why}")
            lines += [f"  {name}" for name in group.names[:most]]
            if most is not None and len(group.names) > most:
                lines.append(f"  and {len(group.names) - most} more")
        return "\n".join(lines)


def assemble(
    tensors: Mapping[str, Tensor], parts: Mapping[str, Part]
) -> tuple[ImportReport, list[str]]:
    """Make ours from theirs.

    Args:
        tensors: theirs.
        parts: of ours, by our names.

    Returns:
        The report, and the names of theirs that no part uses, which are not in it yet.
    """
    report, counters = ImportReport(), []
    sources = {name for part in parts.values() for name in part.sources}
    for ours, part in parts.items():
        absent = [name for name in part.sources if name not in tensors]
        if absent and ours.endswith(COUNTER):
            report.tensors[ours] = torch.zeros(part.shape, dtype=torch.long)
            counters.append(ours)
            continue
        report.add_problems(
            "missing", (f"{n}: {size_text(part.shape)} (ours: {ours})" for n in absent)
        )
        present = {name: tensors[name] for name in part.sources if name in tensors}
        wrong = [
            f"{name} is {size_text(t.shape)}, expected {size_text(part.shape)} (ours: {ours})"
            for name, t in present.items()
            if not part.fits(t)
        ]
        report.add_problems("of another shape", wrong)
        report.add_problems(
            "not finite", (name for name, t in present.items() if not t.isfinite().all())
        )
        if absent or wrong:
            continue
        theirs = list(present.values())
        tensor = part.make([t.float() if t.is_floating_point() else t for t in theirs])
        if part.more_rows and tensor.shape[0] > part.shape[0]:
            report.add_group(
                "left out", f"rows from {part.shape[0]} on, which no text reaches", part.sources
            )
            tensor = tensor[: part.shape[0]]
        report.tensors[ours] = tensor.contiguous()
        report.used.extend(part.sources)
    why = "counters of batch norms, which nothing reads; set to 0"
    report.add_group("initialised", why, counters)
    return report, [name for name in tensors if name not in sources]


def differing_options(sections: Mapping[str, Section], needed: Mapping[str, object]) -> list[str]:
    """Options that differ from what a checkpoint was trained with.

    Args:
        sections: by name, those that the keys of ``needed`` begin with.
        needed: value by dotted key.
    """
    lines = []
    for key, value in needed.items():
        section, *names = key.split(".")
        configured = reduce(getattr, names, sections[section])
        if configured != value:
            lines.append(f"{key} is {configured!r}, the checkpoint was trained with {value!r}")
    return lines


def size_text(shape: Sequence[int]) -> str:
    """A shape for a person to read."""
    return " x ".join(map(str, shape)) or "a number"
