"""Find the files that the configuration names, and the photos of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from wsss.artifacts.watch import files_below
from wsss.config.base import Split
from wsss.config.data import DataConfig
from wsss.config.paths import expand_path
from wsss.config.safe_yaml import read_bytes
from wsss.data.datasets.classes import unicode_form
from wsss.data.datasets.free_text import plain_text
from wsss.data.errors import DataError
from wsss.data.images.read import PHOTO_EXTENSIONS
from wsss.errors import raise_unless_about

IMAGES = "JPEGImages"
"""Folder of the images in VOC's layout."""
MOST_TEXT = 256 * 2**20
"""Most bytes of a list or a table of tags; the 120,000 images of COCO take ten million."""
_NO_PHOTOS = frozenset({
    ".aac", ".aae", ".avi", ".bak", ".csv", ".db", ".doc", ".docx", ".gz", ".h5", ".htm", ".html",
    ".ini", ".ipynb", ".json", ".jsonl", ".log", ".mat", ".md", ".mkv", ".mov", ".mp3", ".mp4",
    ".npy", ".npz", ".ods", ".parquet", ".pdf", ".pkl", ".pptx", ".pt", ".pth", ".py", ".rst",
    ".safetensors", ".sh", ".sha256", ".sqlite", ".tar", ".tex", ".toml", ".tsv", ".txt", ".wav",
    ".webm", ".xls", ".xlsx", ".xml", ".xmp", ".yaml", ".yml", ".zip",
})  # fmt: skip
"""Endings of files that often lie beside photos. Files with other unknown endings are listed."""
_RANKS = 4  # exact and loose spelling, each with and without the folder
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/|[A-Za-z][A-Za-z0-9+.-]+:/")


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
        raise_unless_about(path, error)
        raise DataError(
            f"{path}: the list cannot be read ({error.strerror}); expected one image id per line"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text, expected one image id per line") from None
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


class PhotoIndex:
    """The photos below a folder, looked up by names as people write them.

    A name may be written with or without its sub folder and its extension; case, Unicode form and
    invisible characters are ignored if nothing matches exactly. It may be an absolute path, also
    one of another machine: then its last parts count. Hidden files and folders are left out.

    Args:
        exclude: folders and files in it that are no photos (masks, tables).
    """

    def __init__(self, root: Path, *, exclude: Iterable[Path] = ()) -> None:
        self.root = root
        files = sorted(
            Path(entry.path) for entry in photo_files(root, exclude=exclude, onerror=_refused)
        )
        self.paths = tuple(path for path in files if _ending(path) in PHOTO_EXTENSIONS)
        """All photos, sorted."""
        self.others = tuple(path for path in files if _ending(path) not in PHOTO_EXTENSIONS)
        """Files with endings of no kind that is known here; they may be photos, too."""
        self.foreign_paths: dict[str, Path] = {}
        """The paths of another machine that were looked up, and which photo each one means."""
        self._roots = [PurePosixPath(f(root)) for f in (os.path.abspath, os.path.realpath)]
        # Ranks that are asked for: of a million photos each takes a third of a gigabyte.
        self._by_name: dict[int, dict[str, Path | list[Path]]] = {}

    def id(self, path: Path) -> str:
        """The id of a photo: its path below the folder without the extension."""
        return unicode_form(path.relative_to(self.root).with_suffix("").as_posix())

    def find(self, name: str) -> list[Path]:
        """The photos that ``name`` can mean: several if it is ambiguous, none if it is unknown."""
        path = PurePosixPath(_local_path(name))
        if photos := self._look_up(path):
            return photos
        if not is_absolute(str(path)):
            inside = path.parts[:1] in [root.parts[-1:] for root in self._roots]  # the root's name
            return self._look_up(PurePosixPath(*path.parts[1:])) if inside else []
        if (below := self._below_root(path)) is not None:
            return self._look_up(below)
        if os.path.isfile(path):
            return []  # outside of the folder, and not meant for a photo of the same name in it
        tails = (PurePosixPath(*path.parts[start:]) for start in range(1, len(path.parts)))
        photos = next(filter(None, map(self._look_up, tails)), [])
        if len(photos) == 1:
            self.foreign_paths[name] = photos[0]
        return photos

    def near(self, name: str) -> list[Path]:
        """Photos of the same name in another folder or with another extension."""
        path = PurePosixPath(_local_path(name))
        return self._look_up(PurePosixPath(path.name)) or self._look_up(PurePosixPath(path.stem))

    def _named(self, rank: int) -> dict[str, Path | list[Path]]:
        """The photos by their names of a rank."""
        if rank in self._by_name:
            return self._by_name[rank]
        is_loose, is_short = rank % _RANKS > 1, rank % 2
        by_name = self._by_name[rank] = {}
        for path in self.paths if rank < _RANKS else self.others:
            relative = PurePosixPath(unicode_form(path.relative_to(self.root).as_posix()))
            names = {path.as_posix(), str(relative), str(relative.with_suffix(""))}
            names = {relative.name, relative.stem} if is_short else names
            for name in {plain_text(name).casefold() for name in names} if is_loose else names:
                other = by_name.setdefault(name, path)
                if isinstance(other, list):
                    other.append(path)
                elif other is not path:
                    by_name[name] = [other, path]
        return by_name

    def _look_up(self, path: PurePosixPath) -> list[Path]:
        exact = unicode_form(path.as_posix())
        loose = plain_text(exact).casefold()
        for rank in range(2 * _RANKS):
            photos = self._named(rank).get(loose if rank % _RANKS > 1 else exact)
            if photos is not None:
                return photos if isinstance(photos, list) else [photos]
        return []

    def _below_root(self, path: PurePosixPath) -> PurePosixPath | None:
        """An absolute path as one below the folder; None if it is not. Both may go over links."""
        try:
            resolved = PurePosixPath(os.path.realpath(path.parent)) / path.name
        except ValueError:  # what cannot be a path
            return None
        pairs = ((form, root) for form in (path, resolved) for root in self._roots)
        return next((f.relative_to(root) for f, root in pairs if f.is_relative_to(root)), None)


def is_absolute(name: str) -> bool:
    """Whether a path begins at a root: of this system, a Windows drive, a share, an address."""
    return _ABSOLUTE.match(name) is not None


def _local_path(name: str) -> str:
    """A path as this system writes it: forward slashes, without ``file:`` and ``~``."""
    name = name.replace("\\", "/")
    if name.startswith("file:"):
        name = unquote(name.removeprefix("file:"))
        name = "/" + name.lstrip("/")
    return os.path.expanduser(name) if name.startswith("~/") else name


def _refused(error: OSError) -> None:
    """A folder that cannot be listed at present is not empty."""
    raise_unless_about(Path(error.filename), error)


def _ending(path: Path) -> str:
    return path.suffix.lower()


def photo_files(
    root: Path,
    *,
    exclude: Iterable[Path] = (),
    onerror: Callable[[OSError], object] | None = None,
) -> Iterator[os.DirEntry[str]]:
    """Photos, and files that may be photos.

    Args:
        exclude: as of `PhotoIndex`.
        onerror: as of `wsss.artifacts.watch.files_below`.
    """
    for entry in files_below(root, exclude=exclude, photos=True, onerror=onerror):
        if os.path.splitext(entry.name)[1].lower() not in _NO_PHOTOS:
            yield entry
