"""Write a folder of results: masks, overlays, thumbnails, tables and the page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.photos.classes import CLASSES, ClassTable, write_class_table
from wsss.photos.page import INDEX, gallery_html
from wsss.photos.record import Entry, LeftOut, Record, read_record, write_record
from wsss.photos.review import REVIEW, review_csv


class ResultTree:
    """A folder of results, and what was drawn into it before.

    Args:
        folder: of results.
        record: file that says what it shows.
    """

    def __init__(self, folder: Path, record: Path) -> None:
        self.folder, self._record = folder, record
        self._cached = record.parent / ".cache" / record.name
        self._before: dict[str, Entry] = {}
        with suppress(ArtifactError):  # it only saves drawing
            before = read_record(self._cached)
            if before.folder == folder:
                self._before = {entry.id: entry for entry in before.entries}

    def unchanged(self, keys: Mapping[str, str]) -> dict[str, Entry]:
        """The photos that need not be drawn again.

        Args:
            keys: digest of all that the files of a photo are drawn from, by its id.
        """
        before = {image: self._before.get(image) for image in keys}
        return {
            image: entry
            for image, entry in before.items()
            if entry is not None and entry.key == keys[image] and entry.is_drawn(self.folder)
        }

    def finish(
        self,
        title: str,
        entries: Sequence[Entry],
        classes: ClassTable,
        provenance: Provenance,
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        """Remove the files of photos that are gone; write tables, page and record.

        Args:
            title: of the page.
            entries: all photos.
            classes: names and colours of labels.
            provenance: how the files are made.
            left_out: photos without a mask, which the page lists.

        Raises:
            WriteError: there is no space or no right to write.
        """
        present = {path for entry in entries for path in entry.files}
        gone = {path for entry in self._before.values() for path in entry.files} - present
        self._remove(gone)
        pages = {
            REVIEW: review_csv(entries, classes),
            INDEX: gallery_html(title, entries, classes, self.folder, left_out),
        }
        write_class_table(self.folder, classes)
        for name, text in pages.items():
            write_text(self.folder / name, text)
        names = (*pages, CLASSES)
        sizes = {name: (self.folder / name).stat().st_size for name in names}
        record = Record(self.folder, provenance, tuple(entries), tuple(left_out), sizes)
        write_record(self._cached, record)
        write_record(self._record, record)

    def _remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            with suppress(OSError):
                (self.folder / path).unlink()
                os.removedirs((self.folder / path).parent)  # as far as they are empty
