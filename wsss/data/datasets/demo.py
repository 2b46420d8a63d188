"""The embedded demo: VOC's layout, the demo's classes, tags from ``<root>/tags.csv``."""

from __future__ import annotations

from wsss.config.base import Variant
from wsss.config.data import DataConfig
from wsss.data.datasets.candidates import Dataset
from wsss.data.datasets.classes import class_list, customise
from wsss.data.datasets.files import find_file, find_root
from wsss.data.datasets.tag_table import TagTable
from wsss.data.datasets.tags import TagReader
from wsss.data.datasets.voc import read_lists


def read_demo(data: DataConfig, variant: Variant) -> Dataset:
    """Read the generated demo.

    Raises:
        DataError: it was not generated, or its tables are damaged.
    """
    classes = customise(class_list("demo", variant), data.prompts, data.backgrounds)
    root = find_root(data.root, holds="JPEGImages")
    table = root / "tags.csv" if data.tags == "auto" else find_file(data.tags, root)
    candidates, lists = read_lists(data, root, TagTable(table, TagReader(classes)).find)
    return Dataset(classes, candidates, (*lists, table))
