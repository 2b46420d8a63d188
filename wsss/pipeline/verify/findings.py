"""What is wrong with the artifacts of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss.errors import WsssError

Status = Literal["stale", "damaged", "missing"]
_MOST = 3


@dataclass(frozen=True)
class Finding:
    """One artifact that is not as configured."""

    path: Path
    status: Status
    reason: str
    rule: str
    """The rule of the workflow that makes it; empty where that of a source must run again."""

    def text(self, command: str) -> str:
        """``masks/train/1-of-2.h5: stale: …; rerun: snakemake … --forcerun masks``.

        Args:
            command: how the workflow is started.
        """
        remedy = f"; rerun: {command} --forcerun {self.rule}" if self.rule else ""
        return f"{self.path}: {self.status}: {self.reason}{remedy}"


def first_texts(texts: Sequence[str]) -> str:
    """``a; b; c; and 4 more``."""
    more = f"; and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return "; ".join(texts[:_MOST]) + more


class Findings:
    """The artifacts that were checked, each once, and what is wrong with some of them."""

    def __init__(self) -> None:
        self._by_path: dict[Path, Finding | None] = {}

    def __iter__(self) -> Iterator[Finding]:
        return (finding for finding in self._by_path.values() if finding)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def checked(self) -> int:
        """Number of artifacts."""
        return len(self._by_path)

    def of(self, path: Path) -> Finding | None:
        """What is wrong with an artifact, if it was checked."""
        return self._by_path.get(path)

    def check(
        self,
        path: Path,
        rule: str,
        reasons: Callable[[], Iterable[str]],
        sources: Sequence[Path] = (),
    ) -> bool:
        """Check an artifact, unless that was done.

        Args:
            path: a file or a folder.
            rule: of the workflow, which makes it.
            reasons: gives why it is stale; an error of reading it means that it is damaged.
            sources: the artifacts that it is made from, which were checked before: what is made
                from a stale one is stale.

        Returns:
            Whether it was checked now, or before, and is as configured.
        """
        if path not in self._by_path:
            self._by_path[path] = self._find(path, rule, reasons, sources)
        return self._by_path[path] is None

    def _find(
        self,
        path: Path,
        rule: str,
        reasons: Callable[[], Iterable[str]],
        sources: Sequence[Path],
    ) -> Finding | None:
        if not path.exists():
            return Finding(path, "missing", "is not there", rule)
        try:
            texts = list(dict.fromkeys(reasons()))
        except (WsssError, OSError, ValueError, LookupError, TypeError) as error:
            reason = (str(error) or repr(error)).removeprefix(f"{path}: ")
            return Finding(path, "damaged", reason, rule)
        if texts:
            return Finding(path, "stale", first_texts(texts), rule)
        for source in sources:
            if finding := self.of(source):
                reason = f"made from {source}, which is {finding.status}"
                return Finding(path, "stale", reason, "")
        return None
