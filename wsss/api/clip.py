"""A frozen CLIP for the functions on photos."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from wsss.api.inputs import Photo, argument_names, read_image, section, texts_of
from wsss.api.remedies import described
from wsss.clip.errors import ClipLoadError
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import TextBank, text_bank
from wsss.compute.numerics import Numerics
from wsss.compute.precision import computing
from wsss.config.cams import AffinityConfig
from wsss.config.clip import ClipConfig
from wsss.config.compute import ComputeConfig
from wsss.config.model import DEMO as DEMO_CONFIG
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample

DEMO = "demo"
"""Names the small CLIP that ships with the package; it knows the ten classes of the demo."""


@dataclass(frozen=True)
class Clip:
    """A frozen CLIP, which `load_clip` loads, and its prompts."""

    inputs: EncoderInput
    template: tuple[str, ...]
    precision: str = "auto"
    """See `load_clip`."""
    _texts: dict[tuple[tuple[str, ...], ...], TextBank] = field(default_factory=dict, repr=False)

    def texts(self, classes: ClassList) -> TextBank:
        """Unit vectors of the prompts of classes and backgrounds; encoded once."""
        key = (classes.prompts, classes.backgrounds)
        if key not in self._texts:
            self._texts[key] = text_bank(self.inputs.clip, *key, self.template)
        return self._texts[key]

    @torch.inference_mode()
    def attention(
        self, photo: Photo, *, last_blocks: int | None = None
    ) -> Float32[np.ndarray, "tokens tokens"]:
        """Mean attention over heads and the last blocks, class token first, for `propagate`.

        Args:
            photo: see `read_image`.
            last_blocks: how many blocks; None: two thirds of the encoder's depth.

        Raises:
            ValueError: the encoder has fewer blocks, or the photo is too large for it.
        """
        encoder = self.inputs.encoder
        count = self.blocks_of(section(AffinityConfig, {"last_blocks": last_blocks}))
        blocks = range(encoder.depth - count, encoder.depth)
        pixels = self.pixels(read_image(photo))
        with self.computing():
            total = encoder.run(pixels, attention_sum_of=blocks).attention_sum
        assert total is not None
        return (total[0] / count).cpu().numpy()

    def blocks_of(self, affinity: AffinityConfig) -> int:
        """Last blocks whose attention an affinity averages.

        Raises:
            ValueError: the encoder has fewer.
        """
        depth = self.inputs.encoder.depth
        if (count := affinity.blocks_of(depth)) > depth:
            raise ValueError(f"last_blocks is {count}, but the encoder has {depth}; lower it")
        return count

    def pixels(self, image: np.ndarray) -> torch.Tensor:
        """A photo as the encoder takes it, a batch of one.

        Args:
            image: of `read_image`.

        Raises:
            ValueError: the photo is too large for the encoder's attention.
        """
        height, width = image.shape[:2]
        self.inputs.check_sizes([Sample("photo", "", Path(), width, height, "", ())])
        return self.inputs.prepare(image)[None]

    def computing(self) -> AbstractContextManager[Numerics]:
        """Compute in this CLIP's precision until the block ends."""
        return computing(str(self.inputs.encoder.device), self.precision)


@argument_names()
def load_clip(
    model: str | os.PathLike[str] = DEMO,
    pretrained: str | os.PathLike[str] = "",
    *,
    template: Iterable[str] = ("a clean origami {}.",),
    long_side: int | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Clip:
    """Load a frozen CLIP that open_clip can build: a ViT with a class token, EVA-CLIP or SigLIP.

    Args:
        model: name in open_clip (``ViT-B-16-quickgelu``), path of an open_clip model config
            (``.json``), ``from-weights`` (the shapes of the file say what it is), or ``demo``.
        pretrained: open_clip's tag (``openai``) or path of a weight file; none for ``demo``.
        template: of the prompts, ``{}`` stands for a word; embeddings are averaged over them.
        long_side: photos are scaled to this long side first, pixels; None keeps their size.
        device: ``cpu``, ``cuda``, ``cuda:1`` …, or a device of torch; ``auto`` takes a GPU if
            there is one.
        precision: ``float32``, ``tf32`` or ``bf16``, as ``compute.precision``; ``auto`` is ``tf32``
            on a GPU and ``float32`` on a CPU. Torch's own switches are as before after each call;
            calls of several threads on a GPU all multiply in ``float32`` where one asks for it.

    Raises:
        TypeError: ``template`` is no list of texts.
        ValueError: there is no such device or precision, or a setting is out of range.
        ClipLoadError: unknown name or tag, or weights that cannot be read or do not fit.
        UnsupportedEncoderError: the image tower is of another family.
    """
    device = device_name(device)
    section(ComputeConfig, {"device": device, "precision": precision})
    source: dict[str, Any] = {"model": model, "pretrained": pretrained}
    if model == DEMO:
        if pretrained:
            raise ClipLoadError(
                f"pretrained is {os.fspath(pretrained)!r}, but the model demo has weights of its "
                "own; leave pretrained out, or name the model of these weights"
            )
        source = {key: DEMO_CONFIG["clip"][key] for key in source}
    templates = texts_of("template", template)
    settings = section(ClipConfig, {"template": templates, "long_side": long_side, **source})
    return Clip(EncoderInput(settings, device=device), templates, precision)


def device_name(device: str | torch.device) -> str:
    """The name of a device, also of torch's own ones: ``torch.device("cuda", 1)`` → ``cuda:1``."""
    return str(device) if isinstance(device, torch.device) else device


def check_clip(clip: object) -> None:
    """Refuse a name or a file in place of a loaded CLIP.

    Raises:
        TypeError: it is none that `load_clip` returned.
    """
    if not isinstance(clip, Clip):
        call = f"wsss.load_clip({clip!r})" if isinstance(clip, str) else "wsss.load_clip()"
        raise TypeError(f"clip is {described(clip)}; expected what {call} returns")
