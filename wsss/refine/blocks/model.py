"""The frozen encoder with a trained head (WeCLIP, ExCEL): scores and predictions of photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.clip.input import EncoderInput
from wsss.compute import seeding
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample
from wsss.labels.prediction import Prediction, candidates
from wsss.refine.base import Scores
from wsss.refine.blocks.head import Head
from wsss.refine.blocks.options import HeadOptions
from wsss.refine.inference import MultiScaleInference, Photo, PhotoScaler
from wsss.refine.inputs import ImageCams
from wsss.refine.photos import Result, Subject, on_photos


class HeadNetwork:
    """What a method needs to add are `logits` and `cam_scores`.

    Args:
        config: data, clip, cams, refine, infer and compute.
        head: of the method's shape.
        inputs: the encoder.
        checkpoint: what was trained.
        dropout: evaluate in training mode.

    Raises:
        ArtifactError: the checkpoint is damaged, or of another class list or head.
    """

    def __init__(
        self, config: Config, head: Head, inputs: EncoderInput, checkpoint: Path, *, dropout: bool
    ) -> None:
        tensors, _ = load_checkpoint(checkpoint)
        self.config, self.inputs, self.head = config, inputs, head
        try:
            head.load_state_dict(tensors)
        except RuntimeError as error:
            raise ArtifactError(
                f"{checkpoint}: is of another class list, encoder or refine.{config.refine.method} "
                f"({error}); rerun refine-train"
            ) from None
        self._dropout = dropout
        head.train(dropout)
        infer, encoder = config.infer, inputs.encoder
        self.scaled = PhotoScaler(
            inputs.normalize,
            encoder.patch,
            encoder.device,
            grid=infer.grid,
            rounding="first",
            square=inputs.square,
            long_side=infer.long_side or config.clip.long_side,
        )
        self.inference = MultiScaleInference(
            self.logits,
            scales=infer.scales,
            average="logits",
            grid="scale_1",
            patch=encoder.patch,
            mirror_first=infer.mirror_first,
        )

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """The decoder's logits on the patch grid."""
        raise NotImplementedError

    def cam_scores(self, photo: Photo, image: ImageCams) -> Scores:
        """The image's CAM, refined with what was learned."""
        raise NotImplementedError

    def scores(self, cams: Iterable[ImageCams]) -> Iterator[Scores]:
        """What ``infer.scores`` asks for, in the order of the images."""
        one = self.tag_scores if self.config.infer.scores == "decoder" else self.cam_scores
        return self._on_photos(((image.sample, image) for image in cams), one)

    def predictions(self, samples: Iterable[Sample]) -> Iterator[Prediction]:
        """The decoder's labels of each image: single scale, and all scales with mirroring."""
        return self._on_photos(((sample, sample) for sample in samples), self.prediction)

    def tag_scores(self, photo: Photo, image: ImageCams) -> Scores:
        """Probabilities among the background and the image's tags."""
        self.draw_as(image.sample)
        labels = [0, *(index + 1 for index in image.classes)]
        _, multi = self.inference.probabilities(partial(self.scaled, photo), labels=labels)
        probs = multi[0].cpu().numpy()
        return Scores(probs[1:], probs[0])

    def prediction(self, photo: Photo, sample: Sample) -> Prediction:
        """Every protocol's probabilities, at the photo's size."""
        self.draw_as(sample)
        size = (photo.shape[0], photo.shape[1])
        probs = self.inference.probabilities(partial(self.scaled, photo), size)
        single, multi = (candidates(maps[0].cpu().numpy()) for maps in probs)
        return Prediction(photo, {"single": single, "multi": multi})

    def draw_as(self, sample: Sample) -> None:
        """Let dropout, where it is on, depend on the image alone."""
        if self._dropout:
            torch.manual_seed(int(sample.digest[:15], 16))

    def _on_photos(
        self,
        subjects: Iterable[tuple[Sample, Subject]],
        function: Callable[[Photo, Subject], Result],
    ) -> Iterator[Result]:
        return on_photos(self.inputs, subjects, function, in_turn=self._dropout)


def new_head(
    blocks: int,
    classes: ClassList,
    settings: HeadOptions,
    inputs: EncoderInput,
    *,
    seed: int,
) -> Head:
    """A head on the encoder's device; its start is a function of the seed."""
    encoder = inputs.encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeding.number(seed, seeding.NETWORK, 0))
        head = Head(blocks, encoder.width, classes.label_count, settings)
    return head.to(encoder.device)
