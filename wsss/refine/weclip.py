"""WeCLIP (CVPR 2024): a decoder over frozen CLIP features, taught by CAMs that it helps to refine.

The frozen encoder gives features of all blocks and, with the tags, CAMs M_init. A small head fuses
the features (F_u) and decodes them into labels. Its teacher are pseudo labels made at every step:
M_init is spread along an affinity between patches, first plain attention, then (RFM) attention of
the blocks that agree with the learned affinity A_f; pixel-adaptive refinement follows. Symbols and
equations: spec WeCLIP, section 2. Departures of the released code are options of
``refine.weclip``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wsss.artifacts.checkpoint import load_checkpoint
from wsss.artifacts.code import code_digest
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.cams.encoder_input import EncoderInput
from wsss.cams.maps import resize_maps
from wsss.clip.text import text_bank
from wsss.config.model import Config
from wsss.data import seeding
from wsss.data.classes import ClassList
from wsss.data.manifest import Sample
from wsss.labels.ignore import IGNORED
from wsss.labels.prediction import Prediction, candidates
from wsss.refine.base import Learned, Refiner, Scores
from wsss.refine.cams import CamSet, ImageCams
from wsss.refine.frozen import run_frozen
from wsss.refine.head import Head
from wsss.refine.image_labels import ImageLabels
from wsss.refine.inference import Found, Photo, Subject, Views, on_photos
from wsss.refine.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window
from wsss.refine.seeds import SeedSet
from wsss.refine.stream import CropBatch, CropStream
from wsss.refine.trainer import Trainer
from wsss.refine.weclip_labels import PseudoLabels, refined_cams, unsure_band


class WeClip:
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
    ) -> Learned:
        """Train the head on crops; seeds are not looked at.

        Raises:
            TrainingStoppedError: asked to stop; the next call goes on.
            ValueError: the crop does not fit the patch, or there is no image.
        """
        refine, settings = config.refine, config.refine.weclip
        inputs = EncoderInput(config, cache)
        labels, bank = None, None
        if settings.crop_cams == "image":
            labels = ImageLabels(cams, inputs, unsure_band(settings), cache)
        else:
            words = (classes.prompts, classes.backgrounds, config.clip.template)
            bank = text_bank(inputs.clip, *words, cache_dir=cache).to(inputs.encoder.device)
        stream = CropStream(
            cams,
            inputs,
            refine.train,
            seed=config.seed,
            workers=config.compute.workers,
            labels=None if labels is None else labels.read,
            padding=IGNORED if settings.padding == "ignored" else 0,
        )
        head = _new_head(config, classes, inputs, seed=config.seed)
        trainer = Trainer[CropBatch](
            head,
            refine.train,
            seed=config.seed,
            work=work,
            task=_task(config, classes, cams),
            description="WeCLIP",
        )
        teacher = PseudoLabels(config, inputs.encoder, bank)
        curve = trainer.fit(stream.batches, Step(config, head, teacher))
        own = sum(parameter.numel() for parameter in head.parameters())
        cost = trainer.efficiency("WeCLIP", own, own + inputs.encoder.parameter_count)
        return Learned(head.state_dict(), curve, cost)

    def apply(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        cams: Iterable[ImageCams],
        cache: Path,
    ) -> Iterator[Scores]:
        """Scores of each image's tags: the decoder's, or those of the CAM that it refined.

        Raises:
            ArtifactError: the checkpoint is damaged, or of another class list or head.
        """
        network = _Trained(config, classes, checkpoint, cache)
        scores = network.cam_scores if config.infer.scores == "cam" else network.tag_scores
        return network.on_photos(((image.sample, image) for image in cams), scores)

    def predict(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        samples: Sequence[Sample],
        cache: Path,
    ) -> Iterator[Prediction]:
        """The decoder's labels of each image: single scale, and all scales with mirroring.

        Raises:
            ArtifactError: as `apply`.
        """
        network = _Trained(config, classes, checkpoint, cache)
        return network.on_photos(((sample, sample) for sample in samples), network.prediction)


class Step:
    """The losses of one training step (spec 2.4): ``L = L_seg + 0.1 L_aff``.

    Args:
        config: reads refine.
        head: what is trained.
        teacher: makes the pseudo labels.
    """

    def __init__(self, config: Config, head: Head, teacher: PseudoLabels) -> None:
        self._settings, self._head, self._teacher = config.refine.weclip, head, teacher
        side = config.refine.train.crop // teacher.encoder.patch[0]
        self._grid = (side, side)
        self._near = window(self._grid, self._settings.affinity_radius, teacher.encoder.device)

    def __call__(self, step: int, batch: CropBatch) -> Mapping[str, Tensor]:
        """``loss`` and its parts ``segmentation`` and ``affinity``.

        Args:
            step: 0-based; the refinement module takes part from ``rfm_start`` on.
            batch: the crops.
        """
        teacher = self._teacher
        batch = batch.to(teacher.encoder.device)
        rfm = step >= self._settings.rfm_start
        frozen = teacher.look(batch, rfm=rfm)
        fused, logits = self._head(frozen.features, frozen.grid)
        affinity = self._head.affinity(fused)
        labels = teacher.labels(batch, frozen, affinity.detach() if rfm else None)
        pairs = affinity_labels(labels, self._grid, self._near)
        parts = {
            "segmentation": balanced_cross_entropy(logits, labels),
            "affinity": affinity_loss(affinity, pairs),
        }
        loss = parts["segmentation"] + self._settings.affinity_weight * parts["affinity"]
        return {"loss": loss} | parts


class _Trained:
    """The encoder with a trained head."""

    def __init__(self, config: Config, classes: ClassList, checkpoint: Path, cache: Path) -> None:
        tensors, _ = load_checkpoint(checkpoint)
        self._config, self._inputs = config, EncoderInput(config, cache)
        self._head = _new_head(config, classes, self._inputs, seed=0)
        try:
            self._head.load_state_dict(tensors)
        except RuntimeError as error:
            raise ArtifactError(
                f"{checkpoint}: is of another class list, encoder or refine.weclip ({error}); "
                "rerun refine-train"
            ) from None
        self._dropout = config.infer.dropout == "on"
        self._head.train(self._dropout)
        self._views = Views(config, self._inputs, self._logits)

    def on_photos(
        self,
        subjects: Iterable[tuple[Sample, Subject]],
        function: Callable[[Photo, Subject], Found],
    ) -> Iterator[Found]:
        """See `wsss.refine.inference.on_photos`."""
        return on_photos(self._inputs, subjects, function, in_turn=self._dropout)

    def tag_scores(self, photo: Photo, image: ImageCams) -> Scores:
        """Probabilities among the background and the image's tags."""
        self._seed(image.sample)
        _, logits = self._views.grid_logits(photo)
        own = [0, *(index + 1 for index in image.classes)]
        share = logits[own].softmax(0).cpu().numpy()
        return Scores(share[1:], share[0])

    @torch.inference_mode()
    def cam_scores(self, photo: Photo, image: ImageCams) -> Scores:
        """The image's CAM, refined with the learned affinity."""
        self._seed(image.sample)
        settings = self._config.refine.weclip
        encoder = self._inputs.encoder
        pixels = self._views.pixels(photo, 1.0)[None].to(encoder.device)
        frozen = run_frozen(encoder, pixels, attention_blocks=settings.rfm_blocks)
        assert frozen.attention is not None
        fused, _ = self._head(frozen.features, frozen.grid)
        maps = torch.from_numpy(image.initial.astype(np.float32)).to(encoder.device)
        refined = refined_cams(
            frozen.attention,
            resize_maps(maps, frozen.grid),
            torch.zeros(len(maps), dtype=torch.long, device=encoder.device),
            self._config.cams,
            settings,
            self._head.affinity(fused),
        )
        return Scores(refined.cpu().numpy())

    def prediction(self, photo: Photo, sample: Sample) -> Prediction:
        """Every protocol's probabilities, at the photo's size."""
        self._seed(sample)
        found = self._views.probabilities(photo)
        return Prediction(photo, {n: candidates(p.cpu().numpy()) for n, p in found.items()})

    def _logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        frozen = run_frozen(self._inputs.encoder, images)
        logits: Tensor = self._head(frozen.features, frozen.grid)[1]
        return logits

    def _seed(self, sample: Sample) -> None:
        """Let dropout, where it is on, depend on the image alone."""
        if self._dropout:
            torch.manual_seed(int(sample.digest[:15], 16))


def _new_head(config: Config, classes: ClassList, inputs: EncoderInput, *, seed: int) -> Head:
    """A head on the encoder's device; its start is a function of the seed."""
    encoder = inputs.encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeding.number(seed, seeding.NETWORK, 0))
        head = Head(encoder.depth - 1, encoder.width, classes.label_count, config.refine.weclip)
    return head.to(encoder.device)


def _task(config: Config, classes: ClassList, cams: CamSet) -> str:
    """Digest of all that decides what is learned."""
    sections = {n: getattr(config, n).model_dump(mode="json") for n in ("clip", "cams", "refine")}
    code = code_digest(["wsss.refine.weclip"])
    return digest_json(
        [sections, config.seed, code, cams.inputs, cams.weights, list(classes.names)]
    )


refiner: Refiner = WeClip()
