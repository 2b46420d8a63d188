"""Read exports with third-party programs and compare them with the masks that they were made from.

A program of its own, for an environment that has them (requirements-readers.txt). Its argument is a
folder with the exports `coco`, `polygons`, `yolo`, `folder`, `label-studio`, `cvat.zip`, and
`truth.npz` with a label map per ``<split>/<id>``. It prints the worst IoU by reader as JSON.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path
from urllib.parse import unquote

import cv2
import datumaro
import numpy as np
import supervision
from label_studio_sdk.converter.brush import decode_rle
from pycocotools.coco import COCO

ROOT = Path(sys.argv[1])
TRUTH = dict(np.load(ROOT / "truth.npz"))
NAMES = json.loads((ROOT / "names.json").read_text())
SPLITS = sorted({key.partition("/")[0] for key in TRUTH})


def worst(maps):
    """The lowest IoU of any class in any image; every image must be there."""
    assert maps.keys() == TRUTH.keys(), sorted(maps.keys() ^ TRUTH.keys())
    lowest = 1.0
    for key, labels in maps.items():
        assert labels.shape == TRUTH[key].shape, key
        for label in np.union1d(np.unique(labels), np.unique(TRUTH[key])):
            first, second = labels == label, TRUTH[key] == label
            lowest = min(lowest, (first & second).sum() / (first | second).sum())
    return float(lowest)


def pycocotools(folder):
    maps = {}
    for split in SPLITS:
        coco = COCO(ROOT / folder / f"annotations/instances_{split}.json")
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == NAMES
        for image in coco.loadImgs(coco.getImgIds()):
            labels = np.zeros((image["height"], image["width"]), np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
                labels[coco.annToMask(annotation) > 0] = annotation["category_id"]
            maps[f"{split}/{image['file_name'].removesuffix('.jpg')}"] = labels
    return maps


def of_supervision(dataset, root):
    maps = {}
    for path, image, detections in dataset:
        labels = np.zeros(image.shape[:2], np.uint8)
        assert dataset.classes == NAMES
        for index, mask in zip(
            detections.class_id, [] if len(detections) == 0 else detections.mask, strict=True
        ):
            labels[mask] = index + 1
        maps[str(Path(path).relative_to(root).with_suffix(""))] = labels
    return maps


def supervision_coco(folder):
    maps = {}
    for split in SPLITS:
        root = ROOT / folder / "images"
        dataset = supervision.DetectionDataset.from_coco(
            images_directory_path=str(root / split),
            annotations_path=str(ROOT / folder / f"annotations/instances_{split}.json"),
            force_masks=True,
        )
        maps |= of_supervision(dataset, root)
    return maps


def supervision_yolo():
    maps = {}
    root = ROOT / "yolo/images"
    for key in TRUTH:  # it lists one folder and no sub folders
        # An export calls a folder `images` of photos `images_`: YOLO's programs look for the word.
        folder = Path(*("images_" if part == "images" else part for part in Path(key).parts[:-1]))
        dataset = supervision.DetectionDataset.from_yolo(
            images_directory_path=str(root / folder),
            annotations_directory_path=str(ROOT / "yolo/labels" / folder),
            data_yaml_path=str(ROOT / "yolo/data.yaml"),
            force_masks=True,
        )
        labels = of_supervision(dataset, root)
        maps |= {name.replace("/images_/", "/images/"): each for name, each in labels.items()}
    return maps


def label_studio():
    maps = {}
    for task in json.loads((ROOT / "label-studio/tasks.json").read_text()):
        data = task["data"]
        key = f"{data['split']}/{data['id']}"
        assert unquote(data["image"]).endswith(f"{key}.jpg")
        labels = np.zeros(TRUTH[key].shape, np.uint8)
        for result in task["predictions"][0]["result"]:
            height, width = result["original_height"], result["original_width"]
            flat = decode_rle(result["value"]["rle"])
            (name,) = result["value"]["brushlabels"]
            labels[flat.reshape(height, width, 4)[:, :, 3] > 0] = NAMES.index(name) + 1
        maps[key] = labels
    return maps


def of_datumaro(dataset, split_of):
    categories = dataset.categories()[datumaro.AnnotationType.label]
    names = [label.name for label in categories]
    maps = {}
    for item in dataset:
        key = f"{split_of(item)}/{item.id}"
        labels = np.zeros(TRUTH[key].shape, np.uint8)
        for annotation in item.annotations:
            name = names[annotation.label] if annotation.label is not None else "background"
            if isinstance(annotation, datumaro.Mask) and name in NAMES:
                labels[np.asarray(annotation.image) > 0] = NAMES.index(name) + 1
        maps[key] = labels
    return maps


def datumaro_coco():
    maps = {}
    for split in SPLITS:
        path = str(ROOT / f"coco/annotations/instances_{split}.json")
        dataset = datumaro.Dataset.import_from(path, "coco_instances")
        maps |= of_datumaro(dataset, lambda _, split=split: split)
    return maps


def datumaro_cvat():
    split_of = {key.partition("/")[2]: key.partition("/")[0] for key in TRUTH}
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(ROOT / "cvat.zip").extractall(folder)
        dataset = datumaro.Dataset.import_from(folder, "voc_segmentation")
        return of_datumaro(dataset, lambda item: split_of[item.id])


def opencv_folder():
    """As FiftyOne and mmsegmentation read it: equal names in both folders."""
    maps = {}
    for path in (ROOT / "folder/labels").rglob("*.png"):
        key = str(path.relative_to(ROOT / "folder/labels").with_suffix(""))
        photo = cv2.imread(str(ROOT / f"folder/images/{key}.jpg"), cv2.IMREAD_IGNORE_ORIENTATION)
        from PIL import Image

        maps[key] = np.asarray(Image.open(path))
        assert photo.shape[:2] == maps[key].shape, key
    return maps


print(
    json.dumps(
        {
            "pycocotools, COCO": worst(pycocotools("coco")),
            "pycocotools, polygons": worst(pycocotools("polygons")),
            "supervision, COCO": worst(supervision_coco("coco")),
            "supervision, YOLO": worst(supervision_yolo()),
            "label-studio-sdk": worst(label_studio()),
            "datumaro, COCO": worst(datumaro_coco()),
            "datumaro, CVAT": worst(datumaro_cvat()),
            "OpenCV, folder": worst(opencv_folder()),
        }
    )
)
