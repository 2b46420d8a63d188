"""Find the files that the configuration names, and the photos of a folder."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from wsss.config.paths import expand_path
from wsss.config.safe_yaml import read_bytes
from wsss.data.datasets.classes import unicode_form
from wsss.data.errors import DataError
from wsss.data.images.read import PHOTO_EXTENSIONS

MOST_TEXT = 256 * 2**20
"""Bytes of a list or a table of tags; COCO's hundred thousand images take ten million."""


def find_root(text: str, *, holds: str) -> Path:
    """The data set's folder.

    Args:
        text: ``data.root``.
        holds: a folder that must lie in it, or an empty string.

    Raises:
        DataError: it does not exist or lacks that folder.
    """
    root = expand_path(text)
    if not root.is_dir():
        raise DataError(f"data.root: {root}: no such folder")
    if holds and not (root / holds).is_dir():
        inside = next((p.parent for p in sorted(root.glob(f"*/{holds}"))), None)
        hint = f"; did you mean {inside}?" if inside else ""
        raise DataError(f"data.root: {root}: has no folder {holds}{hint}")
    return root


def find_file(text: str, root: Path) -> Path:
    """A file that the configuration names: as given, or else below the data set's folder."""
    given = expand_path(text)
    below = root / given
    return below if not given.is_file() and below.is_file() else given


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty.

    Raises:
        DataError: missing, or not UTF-8.
    """
    try:
        text = read_bytes(path, MOST_TEXT).decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path}: the list cannot be read ({error.strerror}); expected one image id a line"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text, expected one image id a line") from None
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


class PhotoIndex:
    """The photos below a folder, found by names as people write them.

    A name may come with or without its sub folder and its extension; case and Unicode form are
    ignored where nothing fits exactly. Hidden files and folders are no photos.

    Args:
        root: the folder.
        without: folders in it that hold no photos (masks).
    """

    def __init__(self, root: Path, *, without: tuple[Path, ...] = ()) -> None:
        self._root = root
        self.paths = tuple(_photos(root, {path.absolute() for path in without}))
        """All photos, sorted."""
        self._by_name: defaultdict[tuple[int, str], list[Path]] = defaultdict(list)
        for path in self.paths:
            inside = PurePosixPath(unicode_form(path.relative_to(root).as_posix()))
            whole = {path.as_posix(), str(inside), str(inside.with_suffix(""))}
            for rank, names in enumerate((whole, {inside.name, inside.stem})):
                for name in names:
                    self._by_name[rank, name].append(path)
                for name in {name.casefold() for name in names}:
                    self._by_name[rank + 2, name].append(path)

    def id(self, path: Path) -> str:
        """The id of a photo: its path below the folder without the extension."""
        return unicode_form(path.relative_to(self._root).with_suffix("").as_posix())

    def find(self, name: str) -> list[Path]:
        """The photos that ``name`` can mean; more than one where it is ambiguous."""
        written = unicode_form(PurePosixPath(name).as_posix())
        for rank in range(4):
            found = self._by_name.get((rank, written if rank < 2 else written.casefold()))
            if found:
                return found
        return []


def _photos(root: Path, without: set[Path]) -> list[Path]:
    found: list[Path] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        real = os.path.realpath(folder)
        if real in seen:  # links that lead back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).absolute() not in without
        )
        found += [
            here / name
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in PHOTO_EXTENSIONS
        ]
    return sorted(found)
