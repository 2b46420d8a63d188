"""The official pages of the data sets, with the names of the archives."""

from __future__ import annotations

from typing import Literal

Source = Literal["voc", "voc-test", "sbd", "coco-images", "coco-annotations"]

SOURCES: dict[Source, str] = {
    "voc": (
        "PASCAL VOC 2012: 'training/validation data' (VOCtrainval_11-May-2012.tar, 2 GB) of the "
        "development kit, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ ; unpacked, the data "
        "set's folder is VOCdevkit/VOC2012"
    ),
    "voc-test": (
        "PASCAL VOC 2012 test (VOC2012test.tar): from the evaluation server, after registration, "
        "http://host.robots.ox.ac.uk:8080/ ; only needed for a submission"
    ),
    "sbd": (
        "Semantic Boundaries Dataset (benchmark.tgz, 1.4 GB): its authors' page, "
        "http://home.bharathh.info/pubs/codes/SBD/download.html . trainaug.txt and "
        "SegmentationClassAug are not part of it: other papers provide them. Here "
        "`wsss data trainaug` writes the list and `wsss truth sbd-masks` the masks"
    ),
    "coco-images": (
        "COCO 2014 images: train2014.zip (13 GB) and val2014.zip (6 GB), "
        "https://cocodataset.org/#download ; unpacked to train2014/ and val2014/"
    ),
    "coco-annotations": (
        "COCO 2014 annotations: annotations_trainval2014.zip, https://cocodataset.org/#download ; "
        "unpacked to annotations/"
    ),
}
