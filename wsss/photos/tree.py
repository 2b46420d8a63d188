"""Write a folder of results: masks, overlays, thumbnails, tables and the page.

What writes raises `WriteError` where there is no space or no right to write.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.photos.classes import CLASSES, ClassTable, write_class_table
from wsss.photos.drawing import PhotoFiles
from wsss.photos.journal import Journal
from wsss.photos.page import INDEX, gallery_html
from wsss.photos.record import Entry, LeftOut, Record, write_record
from wsss.photos.review import REVIEW, review_csv


class ResultTree:
    """A folder of results, and what was drawn into it before.

    Args:
        record: file that says what it shows.
    """

    def __init__(self, folder: Path, record: Path) -> None:
        self.folder, self._record = folder, record
        self._journal = Journal(record)
        self._before = self._journal.entries()

    def unchanged(self, keys: Mapping[str, str], photos: Mapping[str, str]) -> dict[str, Entry]:
        """The photos that need not be drawn again.

        Args:
            keys: digest of all that the files of a photo are drawn from, by its id.
            photos: path of each photo, which may have been moved or renamed.
        """
        before = {image: self._before.get(image) for image in keys}
        return {
            image: dataclasses.replace(entry, photo=photos[image])
            for image, entry in before.items()
            if entry is not None and entry.key == keys[image] and entry.is_drawn(self.folder)
        }

    def begin(self) -> None:
        """Mark the folder as one of results, before the first photo is drawn."""
        self._journal.begin()

    def add(self, entry: Entry) -> None:
        """Note a photo that was drawn, so that an interrupted run continues after it."""
        self._journal.add(entry)

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
            classes: names and colours of labels.
            provenance: how the files are made.
            left_out: photos without a mask, which the page lists.
        """
        self._remove_gone({path for entry in entries for path in entry.files})
        pages = {
            REVIEW: review_csv(entries, classes),
            INDEX: gallery_html(title, entries, classes, self.folder, left_out),
        }
        write_class_table(self.folder, classes)
        for name, text in pages.items():
            write_text(self.folder / name, text)
        names = (*pages, CLASSES)
        sizes = {name: (self.folder / name).stat().st_size for name in names}
        self._journal.replace(entries)
        record = Record(self.folder, provenance, tuple(entries), tuple(left_out), sizes)
        write_record(self._record, record)

    def _remove_gone(self, present: set[str]) -> None:
        """Remove what was drawn and is not present; files of the user stay."""
        for entry in self._before.values():
            for path, size in entry.files.items():
                if path not in present and _has_size(self.folder / path, size):
                    self._remove(path)
        # The journal may have been deleted, and half a line of it is not read.
        for path in list(_drawn_below(self.folder, present)):
            self._remove(path)

    def _remove(self, path: str) -> None:
        with suppress(OSError):
            (self.folder / path).unlink()
            os.removedirs((self.folder / path).parent)  # as far as they are empty


def was_begun(record: Path) -> bool:
    """Whether the results of this record were drawn, or at least begun."""
    return record.is_file() or Journal(record).path.is_file()


def _drawn_below(folder: Path, present: set[str]) -> Iterator[str]:
    """Files of photos that are not present.

    A photo counts where all four of its files are there: nothing but a drawing leaves them so.
    """
    masks = folder / "masks"
    for mask in masks.rglob("*.png"):
        try:
            paths = PhotoFiles.of(str(mask.relative_to(masks)).removesuffix(".png")).paths()
        except ArtifactError:  # no name of a photo
            continue
        if present.isdisjoint(paths) and all((folder / path).is_file() for path in paths):
            yield from paths


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
