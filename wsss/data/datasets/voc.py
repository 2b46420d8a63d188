"""PASCAL VOC in the layout of its development kit; tags from XML annotations or a table.

::

    JPEGImages/<id>.jpg
    ImageSets/Segmentation/{train,trainaug,val,…}.txt
    Annotations/<id>.xml        unless data.tags names a CSV

The embedded demo has the same layout, with its tags in ``tags.csv``. Masks are never opened here;
`wsss.score.truth.mask_tags` writes the table of tags read from masks.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Final, Literal
from xml.etree import ElementTree

from wsss.config.base import Split, Variant
from wsss.config.data import DataConfig
from wsss.config.safe_yaml import read_bytes
from wsss.data.datasets.candidates import Candidate, Dataset
from wsss.data.datasets.classes import ClassList, class_list, customise
from wsss.data.datasets.files import (
    IMAGES,
    PhotoIndex,
    configured_lists,
    find_file,
    find_root,
    read_lines,
)
from wsss.data.datasets.tag_table import TagTable
from wsss.data.datasets.tags import TagReader, Tags
from wsss.data.errors import DataError
from wsss.errors import raise_unless_about

ANNOTATIONS, LISTS = "Annotations", "ImageSets/Segmentation"
MASKS, AUGMENTED_MASKS = "SegmentationClass", "SegmentationClassAug"
"""Folders of the development kit; papers pass on the last one together with the list trainaug."""
COUNTS: Final = {"train": 1464, "trainaug": 10_582, "val": 1449, "test": 1456}
"""Images on each list of VOC 2012 segmentation; papers pass on the list trainaug."""
_MAX_XML_BYTES = 2**24
_IN_PATH = re.compile(rf"{IMAGES}/(.+?\.[A-Za-z]+)(?:\s|$)")


class Annotations:
    """Tags from XML annotations.

    Args:
        folder: the folder of the annotations.
        classes: the classes of the tags.
    """

    def __init__(self, folder: Path, classes: ClassList) -> None:
        self.path = folder
        self._reader = TagReader(classes)
        self._tags: dict[str, Tags] = {}  # a list may contain another one: parse each file once
        self.sizes: dict[str, tuple[int, int] | None] = {}
        """Width and height in pixels as annotated, of each image whose tags were read."""

    def find(self, image: str) -> Tags:
        """The object names of an image, difficult ones included, in order of appearance.

        An image without annotation file has no tags (the test images of VOC).
        """
        if image not in self._tags:
            self._tags[image] = self._parse(image)
        return self._tags[image]

    def _parse(self, image: str) -> Tags:
        try:
            annotation = read_annotation(self.path / f"{image}.xml")
        except DataError as error:
            return Tags((), str(error))
        if annotation is None:
            return Tags()
        self.sizes[image] = _annotated_size(annotation)
        objects = annotation.iter("object")  # not their parts, which have names, too
        return self._reader.names(item.findtext("name", default="").strip() for item in objects)


def read_voc(data: DataConfig, variant: Variant) -> Dataset:
    """Read a data set in VOC's layout: VOC itself, or the demo.

    Raises:
        DataError: a folder, a list or the source of the tags is missing or damaged.
    """
    kind: Literal["voc", "demo"] = "demo" if data.kind == "demo" else "voc"
    classes = customise(class_list(kind, variant), data.prompts, data.backgrounds)
    root = find_root(data.root, holds=IMAGES)
    in_table = kind == "demo" and data.tags == "auto"
    source = tag_source(str(root / "tags.csv") if in_table else data.tags, root, classes)
    index = PhotoIndex(root / IMAGES)
    lists = [(split, list_file(name, root)) for split, name in configured_lists(data)]
    candidates = [image for split, path in lists for image in read_list(path, split, index, source)]
    tables = [source.path] if isinstance(source, TagTable) else []
    return Dataset(classes, tuple(candidates), (*(path for _, path in lists), *tables))


def tag_source(tags: str, root: Path, classes: ClassList) -> Annotations | TagTable:
    """The source of the tags of images, which gives them by image id.

    Args:
        tags: ``auto`` or ``xml`` for annotations, or the path of a table.
        classes: the classes of the tags.

    Raises:
        DataError: there are no annotations, or the table cannot be read.
    """
    if tags == "json":
        raise DataError("data.tags: json is for kind coco; voc takes xml or the path of a CSV")
    if tags not in ("auto", "xml"):
        return TagTable(find_file(tags, root), TagReader(classes))
    folder = root / ANNOTATIONS
    if not folder.is_dir():
        table = root / "tags.csv"
        hint = f" ({table} exists)" if table.is_file() else ""
        raise DataError(
            f"{folder}: no such folder, so tags cannot come from XML annotations; "
            f"set data.tags to a CSV{hint}"
        )
    return Annotations(folder, classes)


def read_list(
    path: Path, split: Split, index: PhotoIndex, source: Annotations | TagTable | None
) -> list[Candidate]:
    """The images of one list, in its order, whether their files exist or not.

    Args:
        split: the split of its images.
        source: gives the tags; None: the images have no tags.
    """
    return [_candidate(line, split, index, source) for line in read_lines(path)]


def list_ids(name: str, root: Path) -> list[str]:
    """The ids on a list, which may have a number or the paths of image and mask on each line.

    Args:
        name: a list in ImageSets/Segmentation, or a file.

    Raises:
        DataError: there is no such list.
    """
    root = find_root(root, holds=IMAGES)
    lines = read_lines(list_file(name, root))
    in_paths = map(_IN_PATH.search, lines)
    return [
        str(PurePosixPath(match[1]).with_suffix("")) if match else line.split()[0]
        for line, match in zip(lines, in_paths, strict=True)
    ]


def list_file(name: str, root: Path) -> Path:
    """The file of a list: by its name in ImageSets/Segmentation, or as a path.

    Raises:
        DataError: there is none.
    """
    folder = root / LISTS
    named = folder / f"{name}.txt"
    path = named if named.is_file() else find_file(name, root)
    if not path.is_file():
        lists = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        raise DataError(f"{named}: no such list (lists there: {lists}), and {name!r} is no file")
    return path


def read_annotation(path: Path) -> ElementTree.Element | None:
    """The root of an annotation; None if there is no file.

    Raises:
        DataError: it is no XML.
    """
    try:
        parser = ElementTree.XMLParser(target=_NoEntities())
        parser.feed(read_bytes(path, _MAX_XML_BYTES))
        return parser.close()
    except FileNotFoundError:
        return None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise_unless_about(path, error)
        raise DataError(f"{path.name} cannot be read as XML ({error}); mend or remove it") from None


class _NoEntities(ElementTree.TreeBuilder):
    """Refuses document types: these can define entities that stand for files or gigabytes."""

    def doctype(self, name: str, *_: object) -> None:
        raise ValueError(f"it defines a document type {name[:40]!r}, which no annotation has")


def mask_folder(name: str) -> str:
    """The folder of the masks of a list; lists called ``…aug`` have a folder of their own."""
    return AUGMENTED_MASKS if Path(name).stem.lower().endswith("aug") else MASKS


def _annotated_size(annotation: ElementTree.Element) -> tuple[int, int] | None:
    texts = [annotation.findtext(f"size/{side}", default="") for side in ("width", "height")]
    width, height = (int(text) if text.strip().isdigit() else 0 for text in texts)
    return (width, height) if width and height else None


def _candidate(
    line: str, split: Split, index: PhotoIndex, source: Annotations | TagTable | None
) -> Candidate:
    name = _image_name(line, index)
    photos = index.find(name)
    if not photos:
        return Candidate(name, split, index.root / f"{name}.jpg")
    path, image = photos[0], index.id(photos[0])
    if len(photos) > 1:
        names = ", ".join(photo.name for photo in photos)
        return Candidate(image, split, path, problem=f"{name!r} fits several files: {names}")
    tags = source.find(image) if source else Tags()
    return Candidate(image, split, path, tags.indices, tags.problem)


def _image_name(line: str, index: PhotoIndex) -> str:
    """The image of a line: an id, an id and a number, or the paths of image and mask."""
    if match := _IN_PATH.search(line):
        return match.group(1)
    return line if index.find(line) else line.split()[0]
