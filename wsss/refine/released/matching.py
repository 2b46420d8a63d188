"""Account for every tensor of a file that others published: none is lost without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from wsss.artifacts.errors import ArtifactError
from wsss.config.model import Config

COUNTER = "num_batches_tracked"
"""Steps that a batch norm has seen; read by none that has a momentum."""

Fate = Literal["carried along", "left out", "made up"]


@dataclass(frozen=True)
class Part:
    """One tensor of ours: which of theirs it is made of, and how."""

    sources: tuple[str, ...]
    """Their names."""
    shape: tuple[int, ...]
    """Of each of theirs."""
    make: Callable[[Sequence[Tensor]], Tensor] = lambda theirs: theirs[0]
    more_rows: bool = False
    """Whether theirs may have more rows, of which the first are taken."""

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tensor of theirs has the shape."""
        found = tuple(tensor.shape)
        if self.more_rows and len(found) == len(self.shape) and found[1:] == self.shape[1:]:
            return found[0] >= self.shape[0]
        return found == self.shape


@dataclass(frozen=True)
class Group:
    """Tensors that are not simply used, with the reason."""

    fate: Fate
    why: str
    names: tuple[str, ...]


@dataclass
class ImportReport:
    """Where everything went."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Ours, in float32 where they are no integers."""
    used: list[str] = field(default_factory=list)
    """Theirs that these were made of."""
    groups: list[Group] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong, by kind."""

    def note(self, fate: Fate, why: str, names: Iterable[str]) -> None:
        """Add a group, if it has members."""
        if found := tuple(names):
            self.groups.append(Group(fate, why, found))

    def object_to(self, kind: str, lines: Iterable[str]) -> None:
        """Add problems, if there are any."""
        if found := list(lines):
            self.problems.setdefault(kind, []).extend(found)

    def settle(self, file: Path, remedy: str) -> None:
        """Accept the file, or refuse it with everything that is wrong.

        Raises:
            ArtifactError: there are problems.
        """
        if not self.problems:
            return
        lines = [f"{file}: cannot be imported; nothing was written"]
        for kind, found in self.problems.items():
            lines += [f"  {kind} ({len(found)}):", *(f"    {line}" for line in found)]
        raise ArtifactError("\n".join([*lines, remedy]))

    def text(self, most: int | None = None) -> str:
        """For a person to read, with so many names a group."""
        lines = [f"{len(self.used)} tensors became {len(self.tensors)} of ours"]
        for group in self.groups:
            lines.append(f"{group.fate}, {len(group.names)}: {group.why}")
            lines += [f"  {name}" for name in group.names[:most]]
            if most is not None and len(group.names) > most:
                lines.append(f"  and {len(group.names) - most} more")
        return "\n".join(lines)


def assemble(
    tensors: Mapping[str, Tensor], parts: Mapping[str, Part]
) -> tuple[ImportReport, list[str]]:
    """Make ours of theirs.

    Args:
        tensors: theirs.
        parts: of ours, by our names.

    Returns:
        The account, and the names of theirs that no part asks for. Those still have to be
        accounted for.
    """
    account, invented = ImportReport(), []
    asked = {name for part in parts.values() for name in part.sources}
    for ours, part in parts.items():
        absent = [name for name in part.sources if name not in tensors]
        if absent and ours.endswith(COUNTER):
            account.tensors[ours] = torch.zeros(part.shape, dtype=torch.long)
            invented.append(ours)
            continue
        account.object_to(
            "missing", (f"{n}: {size_text(part.shape)} (ours: {ours})" for n in absent)
        )
        present = {name: tensors[name] for name in part.sources if name in tensors}
        wrong = [
            f"{name} is {size_text(found.shape)}, expected {size_text(part.shape)} (ours: {ours})"
            for name, found in present.items()
            if not part.fits(found)
        ]
        account.object_to("of another shape", wrong)
        account.object_to(
            "not finite", (name for name, found in present.items() if not found.isfinite().all())
        )
        if absent or wrong:
            continue
        theirs = list(present.values())
        made = part.make([t.float() if t.is_floating_point() else t for t in theirs])
        if part.more_rows and made.shape[0] > part.shape[0]:
            account.note(
                "left out", f"rows from {part.shape[0]} on, which no text reaches", part.sources
            )
            made = made[: part.shape[0]]
        account.tensors[ours] = made.contiguous()
        account.used.extend(part.sources)
    account.note("made up", "counters of batch norms, which nothing reads; set to 0", invented)
    return account, [name for name in tensors if name not in asked]


def departures(config: Config, needed: Mapping[str, object]) -> list[str]:
    """Options that differ from what a checkpoint was trained with.

    Args:
        config: the sections that the keys of ``needed`` begin with.
        needed: value by dotted key.
    """
    found = []
    for key, value in needed.items():
        node: object = config
        for step in key.split("."):
            node = getattr(node, step)
        if node != value:
            found.append(f"{key} is {node!r}, the checkpoint was trained with {value!r}")
    return found


def size_text(shape: Sequence[int]) -> str:
    """A shape for a person to read."""
    return " x ".join(map(str, shape)) or "a number"
