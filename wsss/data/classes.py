"""Class lists: names, prompt words and background prompts of each data set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassList:
    """The foreground classes of a data set; label 0 is background, label k is class k - 1."""

    name: str
    names: tuple[str, ...]
    prompts: tuple[str, ...]
    """What stands for each class in a prompt; synonyms are comma-separated."""
    backgrounds: tuple[str, ...]
    """Words of the background prompts (CLIP-ES's background set)."""

    @property
    def label_count(self) -> int:
        """Number of labels, background included."""
        return len(self.names) + 1
