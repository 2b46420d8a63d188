"""What a folder of photos and its tags hold, told in seconds: before anything is computed."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import psutil

from wsss.config.clip import ClipConfig, weights_problem
from wsss.config.data import DataConfig
from wsss.config.paths import expand_path
from wsss.config.retrain import RetrainConfig
from wsss.data.counted import first_names
from wsss.data.datasets.classes import folder_classes, spelling
from wsss.data.datasets.folder import read_folder
from wsss.data.errors import DataError, ImageError
from wsss.data.images.read import image_size, over_limit
from wsss.data.ingest.triage import same_id
from wsss.photos.review import is_narrow

_OF_A_PROCESS, _PER_PIXEL = 400e6, 50
"""Bytes of memory that a process takes for its programs, and per pixel of a photo: measured by
``python -m benchmarks.large_photos`` with photos of 3, 12 and 48 megapixels."""
_ALIKE = 0.8
"""Similarity of two words (`difflib`) from which on one may be a misspelling of the other."""
MOST_SHOWN = 5
_WEIGHT_FILES = {".json", ".pt", ".pth", ".bin", ".safetensors"}


@dataclass(frozen=True)
class PhotoCheck:
    """A folder of photos, as its table and the headers of its files describe it."""

    folder: Path
    table: Path
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    """Photos of each tag, the most frequent first."""
    photos: int
    """That can be used, as far as headers tell."""
    problems: tuple[str, ...]
    """Of photos and rows that cannot be used, one text each."""
    largest: tuple[Path, int, int] | None
    """File, width and height."""
    narrow: tuple[str, ...] = ()
    """Photos that are very long, as text."""

    def lines(self, workers: int) -> Iterator[str]:
        """For the screen.

        Args:
            workers: processes that will each hold a photo.
        """
        size = ""
        if self.largest is not None:
            path, width, height = self.largest
            size = (
                f"; the largest has {width} x {height} = {width * height / 1e6:.1f} megapixels "
                f"({path.name})"
            )
        yield f"photos: {self.photos} with tags in {self.folder}{size}"
        if self.largest is not None:
            yield from self._memory_lines(workers)
        yield f"tags ({self.table}): " + ", ".join(
            f"{name} {count}" for name, count in self.counts.items()
        )
        for rare, frequent in misspellings(self.counts):
            yield (
                f"  {rare} {self.counts[rare]}: close to {frequent} {self.counts[frequent]}, meant?"
            )
        if self.narrow:
            yield (
                f"very long: {first_names(self.narrow, 1)}: CLIP sees few patches across it; raise "
                "clip.long_side in a --config file, or cut the photo into parts"
            )
        if self.problems:
            count = len(self.problems)
            yield f"not used: {count} {'photo or row' if count == 1 else 'photos or rows'}"
            for text in self.problems[:MOST_SHOWN]:
                yield f"  {text}"
            if count > MOST_SHOWN:
                yield f"  and {count - MOST_SHOWN} more"

    def _memory_lines(self, workers: int) -> Iterator[str]:
        """What the largest photo takes, and what is free; advice where that is too little."""
        assert self.largest is not None
        path, width, height = self.largest
        needed = _OF_A_PROCESS + _PER_PIXEL * width * height
        free = psutil.virtual_memory().available
        processes = "1 process" if workers == 1 else f"each of {workers} processes"
        yield (
            f"memory: {path.name} takes about {needed / 1e9:.1f} GB in {processes}; "
            f"{free / 1e9:.1f} GB are free"
        )
        if needed * workers > free:
            fitting = int(free // needed)
            yield (
                f"  that may not do; lower compute.workers to {fitting} in a --config file"
                if fitting
                else "  that will not do; scale this photo down, or free memory"
            )


def check_photos(data: DataConfig, long_side: int | None) -> PhotoCheck:
    """Read the table of tags, and the headers of the photos.

    Args:
        data: of kind ``folder``.
        long_side: ``clip.long_side``.

    Raises:
        DataError: folder or table is missing or cannot be read, there is no class, or no photo has
            a tag.
    """
    root = expand_path(data.root)
    table = root / "tags.csv" if data.tags == "auto" else expand_path(data.tags)
    if root.is_file():
        raise DataError(f"{root}: is a file; name the folder with the photos and their tags")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of photos")
    if not table.is_file():
        raise DataError(
            f"{table}: no table of tags; write one with the columns image and tags, name another "
            f"by --tags{_similar_table(table)}, or let CLIP propose tags: wsss tags suggest "
            f"{quote(str(root))} --words cat,dog,…"
        )
    dataset = read_folder(data, "corrected")
    counts: Counter[str] = Counter()
    problems: list[str] = []
    largest: tuple[Path, int, int] | None = None
    narrow: list[str] = []
    paths: set[Path] = set()
    path_of_id: dict[tuple[str, str], Path] = {}
    for candidate in dataset.candidates:
        if candidate.path in paths:  # listed twice, used once
            continue
        reason = candidate.problem or candidate.skipped
        if not reason:
            try:
                width, height = image_size(candidate.path)
                if width * height > data.max_pixels:
                    reason = over_limit(width, height, data.max_pixels)
            except ImageError as error:
                reason = error.reason
        if not reason and (other := path_of_id.get((candidate.split, candidate.id))):
            reason = same_id(candidate.path, other)
        if reason:
            problems.append(f"{_file_name(candidate.path, root)}: {reason}")
            continue
        path_of_id[candidate.split, candidate.id] = candidate.path
        paths.add(candidate.path)
        if is_narrow(width, height, long_side):
            narrow.append(f"{candidate.path.name} ({width} x {height})")
        counts.update(dataset.classes.names[tag] for tag in candidate.tags)
        if largest is None or width * height > largest[1] * largest[2]:
            largest = candidate.path, width, height
    if not paths:
        shown = "; ".join(problems[:MOST_SHOWN])
        raise DataError(f"{root}: no photo with a tag can be used: {shown or 'there is none'}")
    names = dataset.classes.names
    return PhotoCheck(
        root,
        table,
        names,
        dict(counts.most_common()),
        len(paths),
        tuple(problems),
        largest,
        tuple(narrow),
    )


def misspellings(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Tags that may be misspelt: each with the more frequent tag that it resembles.

    Args:
        counts: photos of each tag, the most frequent first.
    """
    names: dict[str, str] = {}
    pairs = []
    for name in counts:
        text = spelling(name)  # capital letters make no two words
        if close := difflib.get_close_matches(text, names, n=1, cutoff=_ALIKE):
            pairs.append((name, names[close[0]]))
        names[text] = name
    return pairs


def _file_name(path: Path, root: Path) -> str:
    """The path of a photo as it is seen in its folder, with the extension."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _similar_table(table: Path) -> str:
    """A table whose name differs by capital letters or extension: ``, such as photos/Tags.csv``."""
    folder, stem = table.parent, table.stem.casefold()
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    similar = [path for path in paths if path.stem.casefold() == stem and path.suffix]
    return f", such as {quote(str(similar[0]))}" if similar else ""


def check_clip_files(clip: ClipConfig) -> None:
    """Check that the files of the encoder are there, if it is given by files.

    Raises:
        DataError: one is missing, or a model config has no file of weights.
    """
    for option, text in (("--clip", clip.model), ("--weights", clip.pretrained)):
        path = expand_path(text)
        if path.suffix in _WEIGHT_FILES and not path.is_file():
            raise DataError(f"{option}: {path}: no such file")
    if problem := weights_problem("clip", clip.model, clip.pretrained):
        problem = problem.replace("clip.model", f"--clip {expand_path(clip.model)}")
        raise DataError(problem.replace("clip.pretrained", "--weights"))


def check_corrected(retrain: RetrainConfig) -> None:
    """Check that the folder of corrected masks is there, if one is named.

    Raises:
        DataError: it is missing.
    """
    folder = expand_path(retrain.corrected)
    if retrain.corrected and not folder.is_dir():
        raise DataError(
            f"--config: retrain.corrected: {folder}: no such folder; `wsss import-masks` writes one"
        )


def check_words(words: Sequence[str]) -> None:
    """Check the words that tags are chosen from.

    Raises:
        DataError: there is none, or they cannot be classes.
    """
    if not words:
        raise DataError("--words is empty; write words with commas between, e.g. cat,dog")
    try:
        folder_classes(words)
    except DataError as error:
        raise DataError(f"--words: {error}") from None
