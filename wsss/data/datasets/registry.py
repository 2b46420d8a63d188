"""Read any kind of data set."""

from __future__ import annotations

from wsss.config.base import Variant
from wsss.config.data import DataConfig
from wsss.data.datasets.candidates import Dataset
from wsss.data.datasets.classes import refuse_other_classes
from wsss.data.datasets.coco_reader import read_coco
from wsss.data.datasets.folder import read_folder
from wsss.data.datasets.voc import read_voc

_READERS = {"demo": read_voc, "voc": read_voc, "coco": read_coco, "folder": read_folder}


def read_dataset(data: DataConfig, variant: Variant = "corrected") -> Dataset:
    """Read lists and tags; no image is opened.

    Args:
        data: the section of the configuration.
        variant: published or corrected prompt words.

    Raises:
        DataError: something that concerns more than one image is missing or damaged.
    """
    refuse_other_classes(data)
    return _READERS[data.kind](data, variant)
