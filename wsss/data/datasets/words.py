"""Words of the class lists: names, what stands for them in a prompt, backgrounds, other spellings.

VOC and COCO prompt words and background words are those of CLIP-ES, word for word.
"""

from __future__ import annotations

from typing import Final

VOC_NAMES: Final = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip

VOC_PROMPTS: Final = {
    "bird": "bird avian",
    "chair": "chair seat",
    "person": "person with clothes,people,human",
    "tvmonitor": "tvmonitor screen",
}
"""Where the prompt word is not the name."""

VOC_ALIASES: Final = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "television": "tvmonitor",
    "tv": "tvmonitor",
    "tv monitor": "tvmonitor",
    "tv/monitor": "tvmonitor",
}
"""Other spellings that are accepted as tags."""

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
    "person": "person with clothes,people,human",
    "motorcycle": "motorbike",
    "airplane": "aeroplane",
    "bird": "bird avian",
    "backpack": "backpack,bag",
    "umbrella": "umbrella,parasol",
    "handbag": "handbag,purse",
    "tie": "necktie",
    "baseball glove": "glove",
    "spoon": "dessertspoon",
    "chair": "chair seat",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor screen",
    "remote": "remote control",
    "hair drier": "hairdrier,blowdrier",
}
COCO_PUBLISHED_PROMPTS: Final = {"snowboard": "sknowboard"}
"""A slip of the published list, kept so that its numbers can be compared."""

COCO_ALIASES: Final = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "hair dryer": "hair drier",
    "hairdrier": "hair drier",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "remote control": "remote",
    "sofa": "couch",
    "television": "tv",
    "tv monitor": "tv",
    "tvmonitor": "tv",
}

COCO_BACKGROUNDS: Final = tuple(w for w in VOC_BACKGROUNDS if w not in ("keyboard", "sign"))

DEMO_NAMES: Final = (
    "bird", "boat", "bottle", "car", "cat", "fish", "horse", "house", "tree", "umbrella",
)  # fmt: skip

DEMO_BACKGROUNDS: Final = (
    "water", "grass", "road", "sand", "snow", "sky", "cloud", "mountain", "wall", "floor",
)  # fmt: skip
