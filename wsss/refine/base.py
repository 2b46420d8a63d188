"""What a refiner is: a module on top of frozen CLIP, trained on crops of photos and their CAMs.

A method is a folder ``wsss.refine.<method>``: ``options.py`` has its options and facts,
``method.py`` one subclass of `Refiner`. A refiner knows tensors. Crops, training loop, checkpoints,
shards and reuse are the same for all methods: `wsss.refine.training` and `wsss.refine.stage`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from wsss.cams.other_features import PatchEncoder
from wsss.clip.input import EncoderInput
from wsss.compute.packed_rows import to_device
from wsss.config.cams import CamsConfig
from wsss.config.infer import InferConfig
from wsss.config.method import MethodOptions
from wsss.data.datasets.classes import ClassList
from wsss.labels.ignore import IGNORED
from wsss.labels.online import IgnoreBand
from wsss.refine.inference import MultiScaleInference, cut_to
from wsss.refine.photo_scaler import Photo, PhotoScaler
from wsss.refine.training.crops import CropBatch
from wsss.refine.training.trainer import Group

Options = TypeVar("Options", bound=MethodOptions)


@dataclass(frozen=True)
class Scores:
    """Class scores of one image."""

    classes: Float[np.ndarray, "classes h w"]
    """In 0 … 1, one map for each of the image's classes, on a grid of any size."""
    background: Float[np.ndarray, "h w"] | None = None
    """The refiner's own score of the background, in 0 … 1; None: ``masks.background`` makes it."""
    ids: tuple[int, ...] | None = None
    """0-based classes of the maps, where they are not the image's tags."""


@dataclass(frozen=True)
class Setup(Generic[Options]):
    """What a refiner is built from."""

    options: Options
    """The method's options, ``refine.<method>``."""
    encoder_input: EncoderInput
    """The frozen encoder, and how photos enter it."""
    classes: ClassList
    template: Sequence[str]
    """Of the prompts: ``clip.template``."""
    crop: int
    """Side of a training crop, pixels."""
    cams: CamsConfig
    """How the CAMs are computed."""
    infer: InferConfig
    """How photos are predicted; not read in training."""
    encoders: Mapping[str, PatchEncoder] = field(default_factory=dict)
    """Frozen encoders besides CLIP: those that the method's options name in ``encoders``."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """``data.prompts``, which ``classes`` has already taken up."""
    embeddings: Path | None = None
    """Where text embeddings are cached; None: nowhere."""
    workers: int = 1
    """Processes that a training step may use besides this one."""


@dataclass(frozen=True)
class CropOptions:
    """How training crops are labelled and padded."""

    image_labels: bool = False
    """Give each crop its part of a pseudo label of the whole image, computed once."""
    ignore_band: IgnoreBand | None = None
    """Of those pseudo labels; None: every pixel has a label."""
    padding: int = IGNORED
    """Label of what lies outside the image."""
    fill: Literal["black", "zero"] = "black"
    """What lies outside the image: black, or 0 as the encoder takes it."""
    smooth: bool = True
    """Whether images are smoothed where they shrink."""
    corner: bool = False
    """Whether an image smaller than the crop lies in its upper left corner, else anywhere."""


class Refiner(ABC, Generic[Options]):
    """A method. A subclass builds `trained` and implements `loss` and `logits`.

    Args:
        setup: what it is built from. Random starts are drawn from torch's generator, which is
            seeded by whoever builds it.
    """

    trained: nn.Module
    """What learns; its state is the checkpoint, and frozen weights are no part of it."""
    draws_at_inference = False
    """Whether inference draws random numbers."""

    def __init__(self, setup: Setup[Options]) -> None:
        self.setup, self.options = setup, setup.options
        self.encoder = setup.encoder_input.encoder

    @abstractmethod
    def loss(self, step: int, batch: CropBatch) -> Mapping[str, Tensor]:
        """``loss`` of a training step and its parts, which are only recorded.

        Args:
            step: 0-based.
            batch: the crops, on the encoder's device.
        """

    def supervision(self, step: int, batch: CropBatch) -> UInt8[Tensor, "batch side side"]:
        """The labels that a step learns: 0 background, class + 1, 255 nothing.

        Here those that came with the crops. A method overrides this that makes others while it
        trains; its `loss` then learns what this gives.

        Args:
            step: 0-based.
            batch: the crops, on the encoder's device.
        """
        if batch.labels is None:
            raise NotImplementedError(
                f"{type(self).__name__} makes labels while it trains: it must say which, in "
                "`supervision`"
            )
        return batch.labels

    def after_step(self, step: int) -> None:
        """What follows the optimiser's step, without gradients: e.g. a mean teacher moves.

        `loss` may run twice in a step, this runs once. What it changes must be in the state of
        `trained`, or a resumed training ends in other weights.

        Args:
            step: 0-based.
        """

    def supervised_loss(self, batch: CropBatch) -> Mapping[str, Tensor]:
        """The same where ``batch.labels`` are the truth (``supervision: masks``).

        There are no CAMs and no tags then, and whatever stands in for missing labels falls away.

        Args:
            batch: the crops, without maps, on the encoder's device.

        Raises:
            ValueError: the method has no such loss.
        """
        raise ValueError(
            f"{type(self).__name__} has no loss for pixel labels; set supervision to tags, or give "
            "it a supervised_loss"
        )

    @abstractmethod
    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """Logits of the background and of every class, on a grid of any size.

        Args:
            images: normalised; sides are multiples of `unit`.
        """

    def cam_scores(
        self,
        pixels: Float[Tensor, "3 height width"],
        classes: Sequence[int],
        cams: Float[Tensor, "classes h w"],
    ) -> Float[Tensor, "classes rows columns"]:
        """An image's CAMs in 0 … 1, refined with what was learned (``infer.scores: cam``).

        Args:
            pixels: the image, normalised; sides are multiples of `unit`.
            classes: 0-based classes of the maps.
            cams: before the affinity, in 0 … 1, on the grid of their source.
        """
        raise ValueError(f"{type(self).__name__} refines no CAM; set infer.scores to decoder")

    @property
    def crops(self) -> CropOptions:
        """How training crops are labelled and padded."""
        return CropOptions()

    def parameter_groups(self) -> list[Group]:
        """The parameters to train, with learning rates relative to the configured one."""
        return [Group(list(self.trained.parameters()), 1.0)]

    def parameter_counts(self) -> tuple[int, int]:
        """Parameters trained on top of CLIP, and all that a forward pass uses."""
        trained = sum(p.numel() for p in self.trained.parameters() if p.requires_grad)
        others = sum(encoder.parameter_count for encoder in self.setup.encoders.values())
        return trained, trained + self.encoder.parameter_count + others

    def frozen_weights(self) -> dict[str, str]:
        """sha256 of the weights of each frozen encoder, by name."""
        others = {name: encoder.digest for name, encoder in self.setup.encoders.items()}
        return {"clip": self.setup.encoder_input.clip.digest} | others

    def save_memory(self) -> bool:
        """Take less memory per training step from now on, at the price of time; gradients stay.

        Returns:
            Whether it takes less than before. False: there is nothing more to save.
        """
        return False

    def train_mode(self, mode: bool) -> None:
        """Set training or evaluation mode.

        Raises:
            ValueError: the method cannot be trained like this.
        """
        self.trained.train(mode)

    def texts(self) -> Any:
        """Texts that decide what is learned and are no prompts of the classes, for JSON."""
        return None

    @property
    def unit(self) -> tuple[int, int]:
        """Images are cut to multiples of this height and width, pixels; (1, 1): they stay whole."""
        return self.encoder.patch

    @cached_property
    def scaled(self) -> PhotoScaler:
        """A photo's pixels at a scale."""
        infer, inputs = self.setup.infer, self.setup.encoder_input
        return PhotoScaler(
            inputs.normalize,
            self.encoder.patch,
            self.encoder.device,
            grid=infer.grid,
            scales_from="scale_1",
            square=inputs.square,
            long_side=infer.long_side or inputs.long_side,
        )

    @cached_property
    def inference(self) -> MultiScaleInference:
        """Logits are averaged over scales and mirror images, where ``infer.average`` says."""
        infer = self.setup.infer
        return MultiScaleInference(
            self.logits,
            scales=infer.scales,
            average="logits",
            grid="output" if infer.average == "image" else "scale_1",
            share=infer.average_share,
            patch=self.unit,
            mirror_first=infer.mirror_first,
        )

    def tag_scores(self, photo: Photo, classes: Sequence[int]) -> Scores:
        """Probabilities among the background and the image's tags (``infer.scores: decoder``).

        Args:
            photo: RGB.
            classes: 0-based, the tags.
        """
        labels = [0, *(index + 1 for index in classes)]
        probs = self.multi_scale(photo, labels=labels)[1].cpu().numpy()
        return Scores(probs[1:], probs[0])

    def probabilities(self, photo: Photo) -> dict[str, Float[Tensor, "labels height width"]]:
        """Of all labels at the photo's size: ``single`` (scale 1 alone) and ``multi`` (all)."""
        size = (photo.shape[0], photo.shape[1])
        return dict(zip(("single", "multi"), self.multi_scale(photo, size), strict=True))

    def multi_scale(
        self,
        photo: Photo,
        size: tuple[int, int] | None = None,
        labels: Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "labels rows columns"], Float[Tensor, "labels rows columns"]]:
        """Probabilities at scale 1 and over all scales; see `MultiScaleInference`."""
        single, multi = self.inference.probabilities(partial(self.scaled, photo), size, labels)
        return single[0], multi[0]

    @torch.inference_mode()
    def scores(
        self, photo: Photo, classes: Sequence[int], cams: Float[np.ndarray, "classes h w"]
    ) -> Scores:
        """What ``infer.scores`` asks for; arguments as for `tag_scores` and `cam_scores`."""
        if self.setup.infer.scores == "decoder":
            return self.tag_scores(photo, classes)
        maps = to_device(torch.from_numpy(cams.astype(np.float32)), self.encoder.device)
        pixels = cut_to(self.scaled(photo, 1.0)[0], self.unit)
        return Scores(self.cam_scores(pixels, classes, maps).cpu().numpy())
