"""Decode every image in full, in processes, and cache the results for the next ingest.

A file whose path, size and times of change are the same is not decoded again. The cache
only saves time: deleting it changes no result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.code_digest import code_digest
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import package_versions
from wsss.artifacts.watch import Stamp, is_settled, stamp
from wsss.compute.pool import process_pool
from wsss.data.errors import ImageError, IngestError
from wsss.data.images.read import ImageFacts, inspect_image, over_limit
from wsss.errors import raise_unless_about

S = TypeVar("S")
T = TypeVar("T")
_BYTES_WORTH_A_POOL = 128 * 2**20  # some seconds of decoding; processes take one to start
_CHUNK = 16


class DecodeCache:
    """The results of the last ingest, by file.

    Args:
        path: the file of the cache. Another version of the reading code or of Pillow empties it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        code = code_digest(["wsss.data.images.read"])
        self._version = digest_json([code, package_versions().get("pillow")])
        self._entries: dict[str, tuple[Stamp, ImageFacts]] = {}
        try:
            content = verified_json(json.loads(path.read_text(encoding="utf-8")), path, "")
            if content["version"] == self._version:
                for name, (before, facts) in content["files"].items():
                    facts["notes"] = tuple(facts["notes"])
                    self._entries[name] = (tuple(before), ImageFacts(**facts))
        except (OSError, ValueError, KeyError, TypeError, ArtifactError) as error:
            raise_unless_about(path, error)
            self._entries = {}  # all files are decoded again

    def find(self, path: Path, max_pixels: int) -> ImageFacts | None:
        """The result of an unchanged file, or None."""
        before, facts = self._entries.get(str(path), ((), ImageFacts()))
        if not before or before != stamp(path):
            return None
        if facts.width * facts.height > max_pixels:  # the limit was lowered since
            return ImageFacts(error=over_limit(facts.width, facts.height, max_pixels))
        return facts

    def store(self, results: dict[Path, ImageFacts], started_ns: int) -> None:
        """Store the results of usable files that were not just being written.

        Args:
            results: by file.
            started_ns: when decoding began. A file changed shortly before that, or since, could
                change again within the same time stamp.
        """
        files = {}
        for path, facts in results.items():
            now = stamp(path)
            if facts.error is None and now and is_settled(now, started_ns):
                files[str(path)] = (now, asdict(facts))
        content = json_with_checksum({"version": self._version, "files": files})
        write_text(self._path, json.dumps(content))


def decode_all(
    paths: Sequence[Path], cache: DecodeCache, *, max_pixels: int, workers: int
) -> tuple[dict[Path, ImageFacts], int]:
    """Decode files that are not in the cache; the number of workers changes no result.

    Args:
        paths: distinct files.
        cache: results of the last ingest; updated.
        max_pixels: larger images are refused.

    Returns:
        The result of each file, in the order of ``paths``, and how many came from the cache.

    Raises:
        IngestError: a process died.
    """
    started = time.time_ns()
    cached = {path: cache.find(path, max_pixels) for path in paths}
    new = [path for path, facts in cached.items() if facts is None]
    decoding = inspect_all(new, max_pixels=max_pixels, workers=workers)
    decoded = dict(zip(new, track(decoding, total=len(new), description="decoding"), strict=True))
    results = {path: facts or decoded[path] for path, facts in cached.items()}
    cache.store(results, started)
    return results, len(paths) - len(new)


def inspect_all(paths: Sequence[Path], *, max_pixels: int, workers: int) -> Iterator[ImageFacts]:
    """Decode files in full and in order, in processes if there is enough to decode.

    Raises:
        IngestError: a process died.
    """
    size = sum(there[0] for there in map(stamp, paths) if there)
    inspect = partial(_inspect, max_pixels=max_pixels)
    yield from in_processes(inspect, paths, workers if size >= _BYTES_WORTH_A_POOL else 1)


def in_processes(
    function: Callable[[S], T], items: Sequence[S], workers: int, *, chunk: int = _CHUNK
) -> Iterator[T]:
    """Apply a module's function to files or the like, in order; with one worker in this process.

    Raises:
        IngestError: a process died.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    try:
        with process_pool(workers) as pool:
            yield from pool.map(function, items, chunksize=chunk)
    except BrokenProcessPool:
        raise IngestError(
            "a process that decodes images died, probably for lack of memory; lower "
            "compute.workers or data.max_pixels, or set compute.workers to 1 to see at which image"
        ) from None


def _inspect(path: Path, max_pixels: int) -> ImageFacts:
    try:
        return inspect_image(path, max_pixels=max_pixels)
    except ImageError as error:
        return ImageFacts(error=error.reason)
