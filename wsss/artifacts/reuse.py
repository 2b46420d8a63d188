"""Take over from an earlier run what has not changed.

Workflow engines delete a rule's outputs before they rerun it. A stage that works image by image
therefore keeps a second name (a hard link, no second copy on disk) of its last finished shard in
`.kept/` beside the output. When the stage runs again, items with the same key are copied from
there and only new ones are computed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Item, Shard


class Kept:
    """The last finished version of a shard.

    Args:
        output: the shard that the stage is about to write.
        kind: what it holds.
    """

    def __init__(self, output: Path, *, kind: str) -> None:
        self._output = output
        self._store = output.parent / ".kept" / output.name
        self._shard: Shard | None = None
        if self._store.exists():
            try:
                self._shard = Shard(self._store, kind=kind)
            except ArtifactError:
                self._store.unlink()  # it saves time only; what it held is computed again

    def find(self, image: str, key: str) -> Item | None:
        """The item of ``image`` if it was made from the same things, else None."""
        if self._shard is None or image not in self._shard or self._shard.key(image) != key:
            return None
        try:
            return self._shard.read(image)
        except ArtifactError:
            return None

    def keep(self) -> None:
        """Remember the finished output for the next run."""
        self.close()
        self._store.parent.mkdir(exist_ok=True)
        temporary = self._store.with_name(f"{self._store.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        try:
            os.link(self._output, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(self._output, temporary)
        os.replace(temporary, self._store)

    def close(self) -> None:
        """Close the kept shard."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None
