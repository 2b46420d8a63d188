"""PASCAL VOC in the layout of its development kit; tags from XML annotations or a table.

::

    JPEGImages/<id>.jpg
    ImageSets/Segmentation/{train,trainaug,val,…}.txt
    Annotations/<id>.xml        unless data.tags names a CSV

Masks are never opened here; a table of tags read from masks is made by
`wsss.score.truth.mask_tags`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from wsss.config.base import Variant
from wsss.config.cams import Split
from wsss.config.data import DataConfig
from wsss.config.safe_yaml import read_bytes
from wsss.data.datasets.candidates import Candidate, Dataset
from wsss.data.datasets.classes import class_list, customise
from wsss.data.datasets.files import PhotoIndex, find_file, find_root, read_lines
from wsss.data.datasets.tag_table import TagTable
from wsss.data.datasets.tags import TagReader, Tags
from wsss.data.errors import DataError

IMAGES, ANNOTATIONS, LISTS = "JPEGImages", "Annotations", "ImageSets/Segmentation"
MASKS, AUGMENTED_MASKS = "SegmentationClass", "SegmentationClassAug"
"""Folders of the development kit; the last is what papers pass on beside the list trainaug."""
_MOST_XML = 2**24
_IN_PATH = re.compile(rf"{IMAGES}/(.+?\.[A-Za-z]+)(?:\s|$)")


def read_voc(data: DataConfig, variant: Variant) -> Dataset:
    """Read a data set in VOC's layout with VOC's classes.

    Raises:
        DataError: a folder, list or the source of the tags is missing.
    """
    classes = customise(class_list("voc", variant), data.prompts, data.backgrounds)
    root = find_root(data.root, holds=IMAGES)
    reader = TagReader(classes)
    if data.tags in ("auto", "xml"):
        folder = root / ANNOTATIONS
        if not folder.is_dir():
            table = root / "tags.csv"
            hint = f" ({table} exists)" if table.is_file() else ""
            raise DataError(
                f"{folder}: no such folder, so tags cannot come from XML annotations; "
                f"set data.tags to a CSV{hint}"
            )
        candidates, lists = read_lists(data, root, lambda image: xml_tags(folder, image, reader))
        return Dataset(classes, candidates, lists)
    if data.tags == "json":
        raise DataError("data.tags: json is for kind coco; voc takes xml or the path of a CSV")
    path = find_file(data.tags, root)
    candidates, lists = read_lists(data, root, TagTable(path, reader).find)
    return Dataset(classes, candidates, (*lists, path))


def read_lists(
    data: DataConfig, root: Path, tags_of: Callable[[str], Tags]
) -> tuple[tuple[Candidate, ...], tuple[Path, ...]]:
    """The images of the training and the held-out list.

    Args:
        data: names the lists.
        root: the data set's folder.
        tags_of: gives the tags of an id.

    Returns:
        The images in the order of the lists, and the list files.
    """
    index = PhotoIndex(root / IMAGES)
    candidates: list[Candidate] = []
    lists: list[Path] = []
    splits: tuple[tuple[Split, str], ...] = (("train", data.train_list), ("val", data.val_list))
    for split, name in splits:
        if not name:
            continue
        lists.append(list_file(name, root))
        candidates += read_list(lists[-1], split, index, root, tags_of)
    return tuple(candidates), tuple(lists)


def read_list(
    path: Path, split: Split, index: PhotoIndex, root: Path, tags_of: Callable[[str], Tags]
) -> list[Candidate]:
    """The images of one list, in its order, whether their files exist or not.

    Args:
        path: of the list.
        split: that the images get.
        index: of the photos in JPEGImages.
        root: the data set's folder.
        tags_of: gives the tags of an id.
    """
    return [_candidate(line, split, index, root, tags_of) for line in read_lines(path)]


def list_ids(name: str, root: Path) -> list[str]:
    """The ids on a list, as they are written there.

    Args:
        name: of a list in ImageSets/Segmentation, or a file.
        root: the data set's folder.

    Raises:
        DataError: there is no such list.
    """
    root = find_root(str(root), holds=IMAGES)
    return [line.split()[0] for line in read_lines(list_file(name, root))]


def xml_tags(folder: Path, image: str, reader: TagReader) -> Tags:
    """The object names of an annotation, difficult ones included, in order of appearance.

    An image without annotation file has no tags (the test images of VOC).
    """
    try:
        annotation = read_annotation(folder / f"{image}.xml")
    except DataError as error:
        return Tags((), str(error))
    if annotation is None:
        return Tags()
    return reader.names(object_names(annotation))


def object_names(annotation: ElementTree.Element) -> list[str]:
    """The names of the objects, not of their parts, in order of appearance."""
    return [thing.findtext("name", default="").strip() for thing in annotation.iter("object")]


def read_annotation(path: Path) -> ElementTree.Element | None:
    """The root of an annotation; None where there is no file.

    Raises:
        DataError: it is no XML.
    """
    try:
        parser = ElementTree.XMLParser(target=_NoEntities())
        parser.feed(read_bytes(path, _MOST_XML))
        root: ElementTree.Element = parser.close()
        return root
    except FileNotFoundError:
        return None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{path.name} cannot be read as XML ({error}); mend or remove it") from None


class _NoEntities(ElementTree.TreeBuilder):
    """A document type can define entities, which stand for other files or for gigabytes."""

    def doctype(self, name: str, *_: object) -> None:
        raise ValueError(f"it defines a document type {name[:40]!r}, which no annotation has")


def annotated_size(annotation: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height in pixels as an annotation says them; None where it does not."""
    found = [annotation.findtext(f"size/{side}", default="") for side in ("width", "height")]
    width, height = (int(text) if text.strip().isdigit() else 0 for text in found)
    return (width, height) if width and height else None


def mask_folder(name: str) -> str:
    """The folder of the masks of a list: those of lists called ``…aug`` are beside VOC's own."""
    return AUGMENTED_MASKS if Path(name).stem.lower().endswith("aug") else MASKS


def _candidate(
    line: str, split: Split, index: PhotoIndex, root: Path, tags_of: Callable[[str], Tags]
) -> Candidate:
    name = _image_name(line, index)
    found = index.find(name)
    if not found:
        return Candidate(name, split, root / IMAGES / f"{name}.jpg")
    image = index.id(found[0])
    if len(found) > 1:
        several = ", ".join(path.name for path in found)
        return Candidate(image, split, found[0], problem=f"{name!r} fits several files: {several}")
    tags = tags_of(image)
    return Candidate(image, split, found[0], tags.indices, tags.problem)


def _image_name(line: str, index: PhotoIndex) -> str:
    """The image of a line: an id, an id and a number, or the paths of image and mask."""
    in_path = _IN_PATH.search(line)
    if in_path:
        return in_path.group(1)
    return line if index.find(line) else line.split()[0]


def list_file(name: str, root: Path) -> Path:
    """The file of a list: by its name in ImageSets/Segmentation, or as a path.

    Raises:
        DataError: there is none.
    """
    folder = root / LISTS
    named = folder / f"{name}.txt"
    path = named if named.is_file() else find_file(name, root)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        raise DataError(f"{named}: no such list (lists there: {known}), and {name!r} is no file")
    return path
