"""A refiner's setup on golden data, where classes have no names."""

from typing import Any

from wsss.clip.input import EncoderInput
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.refine.base import Setup


def refiner_setup(config: Config, inputs: EncoderInput, labels: int) -> Setup[Any]:
    """What a refiner for so many labels is built from."""
    names = tuple(f"class {index}" for index in range(1, labels))
    return Setup(
        options=config.refine.options,
        encoder_input=inputs,
        classes=ClassList("golden", names, names, ()),
        template=config.clip.template,
        crop=config.refine.train.crop,
        cams=config.cams,
        infer=config.infer,
    )
