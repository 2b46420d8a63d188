"""Reuse the unchanged items of earlier runs.

Workflow engines delete a rule's outputs before they rerun it. A stage that works image by image
therefore keeps a second name (a hard link, no second copy on disk) of its last finished shard in
`.cache/` next to the output. When the stage runs again, items with the same key are copied from
there and only new ones are computed. Where the number of shards has changed, an item is in another
shard than before: then it is looked for in the cached shards of the old number.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.errors import ArtifactError, WriteError
from wsss.artifacts.progress import track
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item, Shard, ShardWriter

_log = logging.getLogger(__name__)
_PART = re.compile(r"\d+-of-(\d+)")


class ItemCache:
    """The last finished versions of a shard and of those that it may take items over from.

    Args:
        output: the shard that the stage is about to write.
    """

    def __init__(self, output: Path, *, kind: str) -> None:
        self._output, self._kind = output, kind
        self._path = output.parent / ".cache" / output.name
        last = self._open(self._path)
        if last is None:  # damaged: it saves time only, and what it held is computed again
            with suppress(OSError):
                self._path.unlink()
        self._shards = [last] if last is not None else []
        self._others: list[Path] | None = None

    def find(self, image: str, key: str) -> Item | None:
        """The item of ``image`` if it was made from the same things, else None."""
        for shard in self._shards:
            if item := _read(shard, image, key):
                return item
        while others := self._unopened():
            other = self._open(others.pop())
            if other is not None:
                self._shards.append(other)
                if item := _read(other, image, key):
                    return item
        return None

    def store(self) -> None:
        """Remember the finished output for the next run; a failure is only logged."""
        self.close()
        try:
            with atomic_path(self._path) as temporary:
                try:
                    os.link(self._output, temporary)
                except OSError:  # a file system without hard links
                    shutil.copyfile(self._output, temporary)
        except (WriteError, OSError) as error:
            _log.warning("%s; the next run computes all of it again", error)
        else:
            self._forget_other_counts()

    def close(self) -> None:
        """Close the cached shards."""
        for shard in self._shards:
            shard.close()
        self._shards = []

    def _open(self, path: Path) -> Shard | None:
        try:
            return Shard(path, kind=self._kind) if path.exists() else None
        except ArtifactError:
            return None

    def _unopened(self) -> list[Path]:
        """Cached shards that may hold images of this one: those of another number of parts."""
        if self._others is None:
            self._others = self._of_other_counts()
        return self._others

    def _of_other_counts(self) -> list[Path]:
        count = _count(self._path)
        paths = sorted(self._path.parent.glob("*-of-*.h5")) if count else []
        return [path for path in paths if _count(path) not in (count, "")]

    def _forget_other_counts(self) -> None:
        """When all parts of the present number are there, those of others have had their use."""
        if count := _count(self._path):
            parts = (self._path.with_name(f"{n}-of-{count}.h5") for n in range(1, int(count) + 1))
            if all(part.exists() for part in parts):
                for path in self._of_other_counts():
                    with suppress(OSError):
                        path.unlink()


def _read(shard: Shard, image: str, key: str) -> Item | None:
    if image not in shard or shard.key(image) != key:
        return None
    try:
        return shard.read(image)
    except ArtifactError:
        return None


def _count(path: Path) -> str:
    """The number of parts in a name such as ``2-of-4.h5``; empty in another name."""
    match = _PART.fullmatch(path.stem)
    return match[1] if match else ""


def write_items(
    out: Path,
    *,
    kind: str,
    keys: Mapping[str, str],
    provenance: Provenance,
    compute: Callable[[list[str]], Iterable[Item]],
    description: str,
    also: Callable[[Item], None] | None = None,
) -> None:
    """Write a shard image by image: unchanged items are copied, the others are computed.

    Args:
        keys: digest of what each item is made from, by image, in the order of the shard.
        compute: gives the items of some images, with their keys, in any order.
        description: shown next to the progress.
        also: called with each item, copied or computed, e.g. to write it in another form.
    """
    cache = ItemCache(out, kind=kind)
    with ShardWriter(out, kind=kind, ids=list(keys), provenance=provenance) as writer:

        def add(item: Item) -> None:
            writer.add(item)
            if also is not None:
                also(item)

        missing = []
        for image, key in keys.items():
            if item := cache.find(image, key):
                add(item)
            else:
                missing.append(image)
        for item in track(compute(missing), total=len(missing), description=description):
            add(item)
    cache.store()
    reused = len(keys) - len(missing)
    _log.info("%d images: %d reused, %d computed", len(keys), reused, len(missing))
