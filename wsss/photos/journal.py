"""What was drawn into a folder of results, noted photo by photo: a line of JSON for each.

A rerun draws only the photos that changed. An interrupted run, even one that was killed, continues
after the photos that are noted. What writes raises `WriteError` where there is no space or no right
to write.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.write_errors import writing
from wsss.photos.record import Entry, entry_from_json, entry_json


class Journal:
    """The notes next to a record; several threads may add to them.

    Args:
        record: file that says what the folder of results shows.
    """

    def __init__(self, record: Path) -> None:
        # The workflow deletes the record before the gallery is drawn again, but not this file.
        self.path = record.parent / ".cache" / f"{record.stem}.jsonl"
        self._lock = threading.Lock()

    def entries(self) -> dict[str, Entry]:
        """The last entry of each photo, by its id.

        Damaged lines, such as the last one of a process that was killed, are left out: they only
        save drawing.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return {}
        entries: dict[str, Entry] = {}
        for line in filter(None, lines):
            try:
                content = verified_json(json.loads(line), self.path, "")
                entry = entry_from_json(content)
            except (ArtifactError, ValueError, KeyError, TypeError, RecursionError):
                continue
            entries[entry.id] = entry
        return entries

    def begin(self) -> None:
        """Make the file, if it is not there."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()

    def add(self, entry: Entry) -> None:
        """Note a photo whose files are written."""
        # The line break comes first: half a line, which a killed process left, ends there.
        with self._lock, writing(self.path), self.path.open("ab") as stream:
            stream.write(b"\n" + _line(entry))

    def replace(self, entries: Iterable[Entry]) -> None:
        """Note these photos and no others."""
        lines = (_line(entry).decode() for entry in entries)
        write_text(self.path, "".join(f"{line}\n" for line in lines))


def _line(entry: Entry) -> bytes:
    return json.dumps(json_with_checksum(entry_json(entry)), separators=(",", ":")).encode()
