"""Words of the class lists: names, prompt words, background words, other spellings.

VOC and COCO prompt words and background words are those of CLIP-ES, word for word.
"""

from __future__ import annotations

from itertools import permutations
from typing import Final

VOC_NAMES: Final = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip

VOC_PROMPTS: Final = {
    "bird": "bird avian", "chair": "chair seat", "person": "person with clothes,people,human",
    "tvmonitor": "tvmonitor screen",
}  # fmt: skip
"""The prompt words of classes for which these differ from the name."""

VOC_BACKGROUNDS: Final = (
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea",
    "railway", "railroad", "keyboard", "helmet", "cloud", "house", "mountain", "ocean", "road",
    "rock", "street", "valley", "bridge", "sign",
)  # fmt: skip

COCO_NAMES: Final = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""As the instances JSON writes them, by ascending category id."""

COCO_PROMPTS: Final = {
    "person": "person with clothes,people,human", "motorcycle": "motorbike",
    "airplane": "aeroplane", "bird": "bird avian", "backpack": "backpack,bag",
    "umbrella": "umbrella,parasol", "handbag": "handbag,purse", "tie": "necktie",
    "baseball glove": "glove", "spoon": "dessertspoon", "chair": "chair seat", "couch": "sofa",
    "potted plant": "pottedplant", "dining table": "diningtable", "tv": "tvmonitor screen",
    "remote": "remote control", "hair drier": "hairdrier,blowdrier",
}  # fmt: skip
COCO_PUBLISHED_PROMPTS: Final = {"snowboard": "sknowboard"}
"""A misspelling of the published list, for the variant `published`."""

COCO_BACKGROUNDS: Final = tuple(w for w in VOC_BACKGROUNDS if w not in ("keyboard", "sign"))

DEMO_NAMES: Final = (
    "bird", "boat", "bottle", "car", "cat", "fish", "horse", "house", "tree", "umbrella",
)  # fmt: skip

DEMO_BACKGROUNDS: Final = (
    "water", "grass", "road", "sand", "snow", "sky", "cloud", "mountain", "wall", "floor",
)  # fmt: skip

_SPELLINGS = (
    ("aeroplane", "airplane"), ("motorbike", "motorcycle"), ("sofa", "couch"),
    ("diningtable", "dining table"), ("pottedplant", "potted plant"),
    ("tvmonitor", "tv", "tv monitor", "tv/monitor", "television"),
    ("hair drier", "hair dryer", "hairdrier"), ("remote", "remote control"),
)  # fmt: skip
VOC_ALIASES, COCO_ALIASES = (
    {alias: name for group in _SPELLINGS for name, alias in permutations(group, 2) if name in names}
    for names in (VOC_NAMES, COCO_NAMES)
)
"""Other spellings that are accepted as tags → the name of the class."""
