"""Decode every image in full, in processes, remembering what was found for the next time.

A file whose path, size and modification time are those of the last ingest is not decoded again.
What is remembered saves time only: deleting it changes no result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.code_digest import code_digest
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import package_versions
from wsss.compute.pool import process_pool
from wsss.data.errors import ImageError, IngestError
from wsss.data.images.read import inspect_image, over_cap

T = TypeVar("T")
_BYTES_WORTH_A_POOL = 128 * 2**20  # some seconds of decoding; processes take one to start
_CHUNK = 16
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is known of a file."""

    error: str | None = None
    """Why it cannot be used; the rest is then empty."""
    width: int = 0
    height: int = 0
    digest: str = ""
    """sha256 of the file's bytes."""
    notes: tuple[str, ...] = ()


class Memory:
    """What the last ingest found out, by file.

    Args:
        path: where it is kept. Another version of the reading code or of Pillow starts anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        code = code_digest(["wsss.data.images.read"])
        self._maker = digest_json([code, package_versions().get("pillow")])
        self._known: dict[str, tuple[list[int], Decoded]] = {}
        try:
            content = verified_json(json.loads(path.read_text(encoding="utf-8")), path, "")
            if content["maker"] == self._maker:
                for name, (stamp, facts) in content["files"].items():
                    facts["notes"] = tuple(facts["notes"])
                    self._known[name] = (stamp, Decoded(**facts))
        except (OSError, ValueError, KeyError, TypeError, ArtifactError):
            self._known = {}  # it saves time only: all is decoded again

    def find(self, path: Path, max_pixels: int) -> Decoded | None:
        """What is known of an unchanged file, or None."""
        known = self._known.get(str(path))
        if known is None or known[0] != _stamp(path):
            return None
        facts = known[1]
        if facts.width * facts.height > max_pixels:  # the cap was lowered since
            return Decoded(over_cap(facts.width, facts.height, max_pixels))
        return facts

    def keep(self, found: dict[Path, Decoded], started_ns: int) -> None:
        """Remember usable files that were not just being written.

        Args:
            found: by file.
            started_ns: when decoding began. A file changed shortly before that, or since, could
                change again within the same time stamp.
        """
        files = {}
        for path, facts in found.items():
            stamp = _stamp(path)
            if facts.error is None and stamp and stamp[1] < started_ns - _SETTLED_NS:
                files[str(path)] = (stamp, asdict(facts))
        write_text(
            self._path, json.dumps(json_with_checksum({"maker": self._maker, "files": files}))
        )


def decode_all(
    paths: Sequence[Path], memory: Memory, *, max_pixels: int, workers: int
) -> tuple[dict[Path, Decoded], int]:
    """Decode files, or recall them; the result does not depend on the number of workers.

    Args:
        paths: distinct files.
        memory: of the last ingest; updated.
        max_pixels: larger images are refused.
        workers: processes.

    Returns:
        What is known of each file, in the order of ``paths``, and how many were recalled.

    Raises:
        IngestError: a process died.
    """
    started = time.time_ns()
    found: dict[Path, Decoded | None] = {path: memory.find(path, max_pixels) for path in paths}
    new = [path for path, facts in found.items() if facts is None]
    facts_of = inspect_all(new, max_pixels=max_pixels, workers=workers)
    progress = track(facts_of, total=len(new), description="decoding")
    for path, facts in zip(new, progress, strict=True):
        found[path] = facts
    known = {path: facts for path, facts in found.items() if facts is not None}
    memory.keep(known, started)
    return known, len(paths) - len(new)


def inspect_all(paths: Sequence[Path], *, max_pixels: int, workers: int) -> Iterator[Decoded]:
    """Decode files in full, in their order, in processes where that is worth starting them.

    Raises:
        IngestError: a process died.
    """
    worth = _bytes(paths) >= _BYTES_WORTH_A_POOL
    yield from in_processes(
        partial(_inspect, max_pixels=max_pixels), paths, workers if worth else 1
    )


def in_processes(
    one: Callable[[Path], T], paths: Sequence[Path], workers: int, *, chunk: int = _CHUNK
) -> Iterator[T]:
    """Apply a module's function to files, in their order; with one worker in this process.

    Raises:
        IngestError: a process died.
    """
    if workers <= 1:
        yield from map(one, paths)
        return
    try:
        with process_pool(workers) as pool:
            yield from pool.map(one, paths, chunksize=chunk)
    except BrokenProcessPool:
        raise IngestError(
            "a process that decodes images died, probably for lack of memory; lower "
            "compute.workers or data.max_pixels, or set compute.workers to 1 to see at which image"
        ) from None


def _inspect(path: Path, max_pixels: int) -> Decoded:
    try:
        facts = inspect_image(path, max_pixels=max_pixels)
        return Decoded(None, facts.width, facts.height, digest_file(path), facts.notes)
    except ImageError as error:
        return Decoded(error.reason)
    except OSError as error:
        return Decoded(f"cannot be read: {error.strerror}")


def _bytes(paths: Sequence[Path]) -> int:
    return sum(size for size, *_ in filter(None, map(_stamp, paths)))


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return []
    return [found.st_size, found.st_mtime_ns]
