"""Find the files that the configuration names, and the photos of a folder."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from wsss.config.base import Split
from wsss.config.data import DataConfig
from wsss.config.paths import expand_path
from wsss.config.safe_yaml import read_bytes
from wsss.data.datasets.classes import unicode_form
from wsss.data.errors import DataError
from wsss.data.images.read import PHOTO_EXTENSIONS

MOST_TEXT = 256 * 2**20
"""Most bytes of a list or a table of tags; the 120,000 images of COCO take ten million."""


def configured_lists(data: DataConfig) -> list[tuple[Split, str]]:
    """The training and the held-out list, without one whose name is empty."""
    lists: tuple[tuple[Split, str], ...] = (("train", data.train_list), ("val", data.val_list))
    return [(split, name) for split, name in lists if name]


def find_root(root: str | Path, *, holds: str = "") -> Path:
    """The data set's folder.

    Args:
        root: ``data.root``.
        holds: a folder that it must contain; empty: none.

    Raises:
        DataError: it does not exist or lacks that folder.
    """
    path = expand_path(str(root))
    if not path.is_dir():
        raise DataError(f"data.root: {path}: no such folder")
    if not (path / holds).is_dir():
        raise DataError(f"data.root: {path}: has no folder {holds}{nested_hint(path, holds)}")
    return path


def nested_hint(root: Path, holds: str) -> str:
    """``; did you mean …?`` with the first folder in ``root`` that contains ``holds``, or empty."""
    nested = next((path.parent for path in sorted(root.glob(f"*/{holds}"))), None)
    return f"; did you mean {nested}?" if nested else ""


def find_file(text: str, root: Path) -> Path:
    """A file that the configuration names: as written, or else below the data set's folder."""
    path = expand_path(text)
    below = root / path
    return below if not path.is_file() and below.is_file() else path


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty, without white space around them.

    Raises:
        DataError: missing, or not UTF-8.
    """
    try:
        text = read_bytes(path, MOST_TEXT).decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path}: the list cannot be read ({error.strerror}); expected one image id per line"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text, expected one image id per line") from None
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


class PhotoIndex:
    """The photos below a folder, looked up by names as people write them.

    A name may be written with or without its sub folder and its extension; case and Unicode form
    are ignored if nothing matches exactly. Hidden files and folders are left out.

    Args:
        root: the folder.
        exclude: folders in it that contain no photos (masks).
    """

    def __init__(self, root: Path, *, exclude: tuple[Path, ...] = ()) -> None:
        self.root = root
        self.paths = tuple(_photos(root, {path.absolute() for path in exclude}))
        """All photos, sorted."""
        self._by_name: defaultdict[tuple[int, str], list[Path]] = defaultdict(list)
        for path in self.paths:
            relative = PurePosixPath(unicode_form(path.relative_to(root).as_posix()))
            full = {path.as_posix(), str(relative), str(relative.with_suffix(""))}
            for rank, names in enumerate((full, {relative.name, relative.stem})):
                for name in names:
                    self._by_name[rank, name].append(path)
                for name in {name.casefold() for name in names}:
                    self._by_name[rank + 2, name].append(path)

    def id(self, path: Path) -> str:
        """The id of a photo: its path below the folder without the extension."""
        return unicode_form(path.relative_to(self.root).with_suffix("").as_posix())

    def find(self, name: str) -> list[Path]:
        """The photos that ``name`` can mean: several if it is ambiguous, none if it is unknown."""
        exact = unicode_form(PurePosixPath(name).as_posix())
        keys = [(rank, exact if rank < 2 else exact.casefold()) for rank in range(4)]
        return next((self._by_name[key] for key in keys if key in self._by_name), [])


def _photos(root: Path, exclude: set[Path]) -> list[Path]:
    photos: list[Path] = []
    visited: set[str] = set()
    for name, folders, files in os.walk(root, followlinks=True):
        folder, target = Path(name), os.path.realpath(name)
        if target in visited:  # links that lead back
            folders.clear()
            continue
        visited.add(target)
        visible = (sub for sub in folders if not sub.startswith("."))
        folders[:] = sorted(sub for sub in visible if (folder / sub).absolute() not in exclude)
        photos += [
            folder / file
            for file in files
            if not file.startswith(".") and Path(file).suffix.lower() in PHOTO_EXTENSIONS
        ]
    return sorted(photos)
