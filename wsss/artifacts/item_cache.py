"""Reuse the unchanged items of an earlier run.

Workflow engines delete a rule's outputs before they rerun it. A stage that works image by image
therefore keeps a second name (a hard link, no second copy on disk) of its last finished shard in
`.cache/` next to the output. When the stage runs again, items with the same key are copied from
there and only new ones are computed.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.errors import ArtifactError, WriteError
from wsss.artifacts.shard import Item, Shard

_log = logging.getLogger(__name__)


class ItemCache:
    """The last finished version of a shard.

    Args:
        output: the shard that the stage is about to write.
        kind: what it holds.
    """

    def __init__(self, output: Path, *, kind: str) -> None:
        self._output = output
        self._path = output.parent / ".cache" / output.name
        self._shard: Shard | None = None
        if self._path.exists():
            try:
                self._shard = Shard(self._path, kind=kind)
            except ArtifactError:
                # It saves time only; what it held is computed again.
                self._path.unlink(missing_ok=True)

    def find(self, image: str, key: str) -> Item | None:
        """The item of ``image`` if it was made from the same things, else None."""
        if self._shard is None or image not in self._shard or self._shard.key(image) != key:
            return None
        try:
            return self._shard.read(image)
        except ArtifactError:
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

    def close(self) -> None:
        """Close the cached shard."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None
