"""WeakCLIP (IJCV 2024): seeds in, pseudo masks out.

A text-guided segmenter on frozen CLIP features is trained on hard seeds: their cross-entropy, the
edges of the image through a CRF, and the cosines of patches and prompted class names. It is then
applied to the very images it was trained on. Symbols and equations:
docs/methods/weakclip.md. Departures of the released code are options of ``refine.weakclip``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.clip.input import EncoderInput
from wsss.compute import seeding
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.data.datasets.classes import ClassList, spelling
from wsss.data.datasets.voc import list_ids
from wsss.data.manifest import Sample
from wsss.labels.prediction import Prediction, candidates
from wsss.refine.base import Refiner, Scores, TrainingResult
from wsss.refine.inference import MultiScaleInference, Photo, PhotoScaler
from wsss.refine.inputs import CamSet, ImageCams
from wsss.refine.photos import on_photos
from wsss.refine.seed_set import SeedSet
from wsss.refine.training.crops import CropBatch, CropStream
from wsss.refine.training.task import training_task
from wsss.refine.training.trainer import Trainer
from wsss.refine.weakclip.boundary import boundary_crf, grid_photos
from wsss.refine.weakclip.losses import (
    auxiliary_loss,
    boundary_loss,
    crf_targets,
    label_probabilities,
    seed_loss,
)
from wsss.refine.weakclip.network import WeakClipNetwork
from wsss.refine.weakclip.options import WeakClipOptions

_BACKGROUND = "background"
_STRIDE = 4  # pixels a cell of the scores that are handed on


class WeakClip:
    """The refiner; see `wsss.refine.base.Refiner`."""

    sections: tuple[str, ...] = ("clip", "cams", "refine", "infer")

    def train(
        self,
        config: Config,
        classes: ClassList,
        cams: CamSet,
        work: Path,
        cache: Path,
        seeds: SeedSet | None = None,
    ) -> TrainingResult:
        """Train on crops of the photos and of their seeds.

        Raises:
            TrainingStoppedError: asked to stop; the next call goes on.
            ValueError: there are no seeds, the crop does not fit the patch, or there is no image.
        """
        if seeds is None:
            raise ValueError("WeakCLIP learns from seeds; pass the shards of the stage seeds")
        refine, settings = config.refine, config.refine.section(WeakClipOptions)
        inputs = EncoderInput(
            config.clip, cache, max_pixels=config.data.max_pixels, device=config.compute.device
        )
        stream = CropStream(
            cams,
            inputs,
            refine.train,
            seed=config.seed,
            workers=config.compute.workers,
            labels=seeds.read,
            fill=inputs.mean_colour,
            twice=_repeated(config),
        )
        network = build_network(config, classes, inputs, seed=config.seed)
        trainer = Trainer[CropBatch](
            network.trained,
            refine.train,
            seed=config.seed,
            work=work,
            task=training_task(config, classes, cams, [seeds.inputs, class_texts(config, classes)]),
            description="WeakCLIP",
            groups=network.groups(),
        )
        network.train()
        curve = trainer.fit(stream.batches, Step(settings, network, inputs))
        cost = trainer.efficiency("WeakCLIP", *network.parameter_counts())
        return TrainingResult(network.trained.state_dict(), curve, cost)

    def apply(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        cams: Iterable[ImageCams],
        cache: Path,
    ) -> Iterator[Scores]:
        """Probabilities of each image's tags, or of all labels that win somewhere.

        Raises:
            ArtifactError: the checkpoint is damaged, or of another class list or network.
        """
        trained = _Trained(config, classes, checkpoint, cache)
        return on_photos(trained.inputs, ((image.sample, image) for image in cams), trained.scores)

    def predict(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        samples: Sequence[Sample],
        cache: Path,
    ) -> Iterator[Prediction]:
        """Labels of each image: single scale, and all scales with mirroring.

        Raises:
            ArtifactError: as `apply`.
        """
        trained = _Trained(config, classes, checkpoint, cache)
        return on_photos(trained.inputs, ((sample, None) for sample in samples), trained.prediction)


class Step:
    """The losses of one training step (eq. 17-22).

    Args:
        settings: weights and departures.
        network: what is trained.
        inputs: the normalisation.
    """

    def __init__(
        self, settings: WeakClipOptions, network: WeakClipNetwork, inputs: EncoderInput
    ) -> None:
        self._settings, self._network, self._inputs = settings, network, inputs
        cell = inputs.encoder.patch[0] // 2
        self._crf = boundary_crf(settings.boundary, max(1, cell))

    def __call__(self, step: int, batch: CropBatch) -> Mapping[str, Tensor]:
        """``loss`` and its parts ``seed``, ``boundary`` and ``auxiliary``, without their weights.

        Args:
            step: 0-based; every step is alike.
            batch: the crops and their seeds.
        """
        del step
        settings, network = self._settings, self._network
        batch = batch.to(self._inputs.encoder.device)
        assert batch.labels is not None
        seen = network.look(batch.images)
        match, logits = network.head(seen, network.texts())
        size = (2 * seen.grid[0], 2 * seen.grid[1])
        small = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        tags = _allowed(batch, logits.shape[1])
        allowed = tags if settings.tags_in_losses == "masked" else None
        share = label_probabilities(small, allowed)
        photos = grid_photos(batch.images, size, self._inputs, settings.boundary)
        in_crf = None if settings.tags_in_losses == "ignored" else tags
        smoothed = crf_targets(share, photos, self._crf, in_crf)
        valid = None if settings.padding == "labelled" else _nearest(batch.valid, size)
        parts = {
            "seed": seed_loss(share, _nearest(batch.labels, size)),
            "boundary": boundary_loss(share, smoothed, valid),
            "auxiliary": auxiliary_loss(
                match,
                batch.labels,
                temperature=settings.auxiliary_temperature,
                allowed=allowed,
                ignored_count=settings.auxiliary_mean == "all",
            ),
        }
        loss = (
            settings.seed_weight * parts["seed"]
            + settings.boundary_weight * parts["boundary"]
            + settings.auxiliary_weight * parts["auxiliary"]
        )
        return {"loss": loss} | parts


class _Trained:
    """The network with trained weights."""

    def __init__(self, config: Config, classes: ClassList, checkpoint: Path, cache: Path) -> None:
        tensors, _ = load_checkpoint(checkpoint)
        self.inputs = EncoderInput(
            config.clip, cache, max_pixels=config.data.max_pixels, device=config.compute.device
        )
        self._labels = classes.label_count
        self._masked = config.refine.section(WeakClipOptions).tags_in_masks == "masked"
        self._network = build_network(config, classes, self.inputs, seed=0)
        try:
            self._network.trained.load_state_dict(tensors)
        except RuntimeError as error:
            raise ArtifactError(
                f"{checkpoint}: is of another class list, encoder or refine.weakclip ({error}); "
                "rerun refine-train"
            ) from None
        self._network.train(False)
        with torch.inference_mode():
            self._texts = self._network.texts()  # they hang on no image
        infer, encoder = config.infer, self.inputs.encoder
        self._scaled = PhotoScaler(
            self.inputs.normalize,
            encoder.patch,
            encoder.device,
            grid=infer.grid,
            rounding="each",
            square=self.inputs.square,
            short_side=infer.short_side,
            long_side=infer.long_side or config.clip.long_side,
        )
        self._inference = MultiScaleInference(
            self._logits,
            scales=infer.scales,
            average="probabilities",
            grid="output",
            patch=encoder.patch,
            mirror_in_batch=False,
            window=infer.window,
            stride=infer.stride,
        )

    def scores(self, photo: Photo, image: ImageCams) -> Scores:
        """Probabilities of the background and of the tags, or of the labels that win somewhere."""
        size = (-(-photo.shape[0] // _STRIDE), -(-photo.shape[1] // _STRIDE))
        if self._masked:
            labels = [0, *(index + 1 for index in image.classes)]
            probs = self._probs(photo, size, labels)[1]
            return Scores(probs[1:], probs[0])
        probs = self._probs(photo, size)[1]
        winners = [int(label) for label in np.unique(probs.argmax(0)) if label]
        return Scores(probs[winners], probs[0], tuple(label - 1 for label in winners))

    def prediction(self, photo: Photo, subject: None) -> Prediction:
        """Both protocols' probabilities, at the photo's size."""
        del subject
        single, multi = self._probs(photo, (photo.shape[0], photo.shape[1]))
        return Prediction(photo, {"single": candidates(single), "multi": candidates(multi)})

    def _probs(
        self, photo: Photo, size: tuple[int, int], labels: Sequence[int] | None = None
    ) -> list[np.ndarray]:
        view = partial(self._scaled, photo)
        return [maps[0].cpu().numpy() for maps in self._inference.probabilities(view, size, labels)]

    def _logits(
        self, images: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch labels height width"]:
        logits: Tensor = self._network.head(self._network.look(images), self._texts)[1]
        return logits[:, : self._labels]


def build_network(
    config: Config, classes: ClassList, inputs: EncoderInput, *, seed: int
) -> WeakClipNetwork:
    """A network on the encoder's device; its start is a function of the seed."""
    names = class_texts(config, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeding.number(seed, seeding.NETWORK, 0))
        return WeakClipNetwork(
            inputs.clip,
            inputs.encoder,
            names,
            config.refine.section(WeakClipOptions),
            config.refine.train.crop,
        )


def class_texts(config: Config, classes: ClassList) -> list[str]:
    """What stands behind the learnable vectors: the background, the classes, extra labels.

    Classes have their bare names. ``data.prompts`` may put other words in their place; the synonyms
    of the class list, made for other templates, do not.
    """
    own = {spelling(name) for name in config.data.prompts}
    words = zip(classes.names, classes.prompts, strict=True)
    chosen = (prompt if spelling(name) in own else name for name, prompt in words)
    names = [word.replace("_", " ") for word in chosen]
    return [_BACKGROUND, *names, *config.refine.section(WeakClipOptions).extra_labels]


def _allowed(batch: CropBatch, labels: int) -> Bool[Tensor, "batch labels"]:
    """The background and the tags of each image."""
    allowed = torch.zeros(len(batch.images), labels, dtype=torch.bool, device=batch.images.device)
    allowed[:, 0] = True
    allowed[batch.owner, batch.classes + 1] = True
    return allowed


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Every cell takes the value of its first pixel."""
    small = F.interpolate(maps[:, None].float(), size, mode="nearest")[:, 0]
    return small.to(maps.dtype)


def _repeated(config: Config) -> frozenset[str]:
    """Images that come twice an epoch."""
    name = config.refine.section(WeakClipOptions).repeat_list
    if not name or config.data.kind != "voc":
        return frozenset()
    return frozenset(list_ids(name, expand_path(config.data.root)))


refiner: Refiner = WeakClip()
