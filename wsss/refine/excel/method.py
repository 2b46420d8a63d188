"""ExCEL (CVPR 2025): a decoder over frozen CLIP features, taught by patch-text CAMs.

The frozen encoder gives features of all blocks and, without a gradient, CAMs from the similarity of
its patches to texts (`wsss.cams.patch_text`). The head of WeCLIP fuses and decodes the features. At
first the static CAMs are its teacher; then the relation between its fused features shifts the
encoder's calibrated attention (LVC), and the dynamic CAMs that follow teach it. Symbols and
equations: docs/methods/excel.md. Departures of the released code are options of ``refine.excel``
and ``cams.patch_text``. Its choice of training crops by looking at pixel labels is none of them:
training never opens those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from wsss.cams.maps import scale_maps
from wsss.cams.patch_text import PatchText
from wsss.clip.input import EncoderInput
from wsss.clip.text.attributes import described, enriched_bank
from wsss.compute import distributed
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample
from wsss.labels.ignore import IGNORED
from wsss.labels.prediction import Prediction
from wsss.refine.base import Refiner, Scores, TrainingResult
from wsss.refine.blocks.head import Decoded, Head
from wsss.refine.blocks.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window
from wsss.refine.blocks.model import HeadNetwork, new_head
from wsss.refine.blocks.pseudo_labels import ignore_band, padding_label
from wsss.refine.excel.options import ExcelOptions
from wsss.refine.excel.teacher import Teacher, look, relation
from wsss.refine.inference import Photo
from wsss.refine.inputs import CamSet, ImageCams
from wsss.refine.seed_set import SeedSet
from wsss.refine.training.crops import CropBatch, CropStream
from wsss.refine.training.image_labels import ImageLabels
from wsss.refine.training.task import training_task
from wsss.refine.training.trainer import Trainer


class Excel:
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
        """Train the head on crops; seeds are not looked at.

        Raises:
            KnowledgeError: TSE is on and a class has no description.
            TrainingStoppedError: asked to stop; the next call goes on.
            ValueError: the crop does not fit the patch, there is no image, or several processes
                were launched that cannot share a batch.
        """
        refine, settings = config.refine, config.refine.section(ExcelOptions)
        if distributed.count() > 1 and settings.relation_mean == "batch":
            raise ValueError(
                "refine.excel.relation_mean is batch (as released): the mean runs over a whole "
                "batch, which several processes would each see a part of; train with one GPU, or "
                "set it to image"
            )
        inputs = EncoderInput(
            config.clip, cache, max_pixels=config.data.max_pixels, device=config.compute.device
        )
        labels = None
        if settings.crop_visibility == "image":
            labels = ImageLabels(cams, inputs, ignore_band(settings), cache)
        stream = CropStream(
            cams,
            inputs,
            refine.train,
            seed=config.seed,
            workers=config.compute.workers,
            labels=None if labels is None else labels.read,
            padding=padding_label(settings),
        )
        head = _new_head(config, classes, inputs, seed=config.seed)
        texts = described(classes, config.cams.patch_text.tse)
        trainer = Trainer[CropBatch](
            head,
            refine.train,
            seed=config.seed,
            work=work,
            task=training_task(config, classes, cams, texts),
            description="ExCEL",
        )
        teacher = make_teacher(config, classes, inputs, cache)
        curve = trainer.fit(stream.batches, Step(config, head, teacher))
        own = sum(parameter.numel() for parameter in head.parameters())
        cost = trainer.efficiency("ExCEL", own, own + inputs.encoder.parameter_count)
        return TrainingResult(head.state_dict(), curve, cost)

    def apply(
        self,
        config: Config,
        classes: ClassList,
        checkpoint: Path,
        cams: Iterable[ImageCams],
        cache: Path,
    ) -> Iterator[Scores]:
        """Scores of each image's tags: the decoder's, or its dynamic CAM, refined.

        Raises:
            ArtifactError: the checkpoint is damaged, or of another class list or head.
        """
        return _Trained(config, classes, checkpoint, cache).scores(cams)

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
        return _Trained(config, classes, checkpoint, cache).predictions(samples)


class Step:
    """The losses of one training step (eq. 21 and 22): ``L = L_seg + 0.1 L_aff``.

    Args:
        config: reads refine.
        head: what is trained.
        teacher: makes the pseudo labels.
    """

    def __init__(self, config: Config, head: Head, teacher: Teacher) -> None:
        self._settings = config.refine.section(ExcelOptions)
        self._head, self._teacher = head, teacher
        encoder = teacher.scores.encoder
        side = config.refine.train.crop // encoder.patch[0]
        self._grid, self._device = (side, side), encoder.device
        self._near = window(self._grid, self._settings.affinity_radius, encoder.device)

    def __call__(self, step: int, batch: CropBatch) -> Mapping[str, Tensor]:
        """``loss`` and its parts ``segmentation`` and ``affinity``.

        Args:
            step: 0-based; the learned relation takes part from ``lvc_start`` on.
            batch: the crops.
        """
        settings = self._settings
        batch = batch.to(self._device)
        dynamic = step >= settings.lvc_start
        seen = self._teacher.look(batch.images, dynamic=dynamic)
        clean, fused, logits = self._head(seen.features, seen.grid)
        related = relation(fused, settings)
        calibrating = None
        if dynamic:
            noisy = settings.relation_dropout == "on"
            calibrating = related.detach() if noisy else relation(clean.detach(), settings)
        labels = self._teacher.labels(batch, seen, calibrating)
        late = settings.self_training_start
        paired = labels if late is None or step < late else self._own_labels(logits, batch)
        pairs = affinity_labels(paired, self._grid, self._near)
        parts = {
            "segmentation": balanced_cross_entropy(logits, labels),
            "affinity": affinity_loss(related.sigmoid(), pairs),
        }
        loss = parts["segmentation"] + settings.affinity_weight * parts["affinity"]
        return {"loss": loss} | parts

    @torch.no_grad()
    def _own_labels(
        self, logits: Float[Tensor, "batch labels rows columns"], batch: CropBatch
    ) -> UInt8[Tensor, "batch side side"]:
        """The decoder's own prediction of the crops."""
        size = (batch.images.shape[-2], batch.images.shape[-1])
        full = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        labels = full.argmax(1).to(torch.uint8)
        hidden = ~batch.valid if self._settings.padding == "ignored" else None
        return labels if hidden is None else labels.masked_fill(hidden, IGNORED)


class _Trained(HeadNetwork):
    """The encoder with a trained head."""

    def __init__(self, config: Config, classes: ClassList, checkpoint: Path, cache: Path) -> None:
        inputs = EncoderInput(
            config.clip, cache, max_pixels=config.data.max_pixels, device=config.compute.device
        )
        self._teacher = make_teacher(config, classes, inputs, cache)
        head = _new_head(config, classes, inputs, seed=0)
        super().__init__(config, head, inputs, checkpoint, dropout=False)

    @torch.inference_mode()
    def cam_scores(self, photo: Photo, image: ImageCams) -> Scores:
        """The dynamic CAM: maximum of the image and its mirror image, spread (eq. 24).

        With ``infer.scores: static_cam`` the static CAM, without mirroring.
        """
        settings, teacher = self.config.refine.section(ExcelOptions), self._teacher
        device = self.inputs.encoder.device
        pixels = self.scaled(photo, 1.0)[0]
        owner = torch.zeros(len(image.classes), dtype=torch.long, device=device)
        classes = torch.tensor(image.classes, dtype=torch.long, device=device)
        if self.config.infer.scores == "static_cam":
            seen = teacher.look(pixels[None], dynamic=True)
            related = relation(self.head(seen.features, seen.grid).clean, settings)
            maps = teacher.scores.maps(teacher.features(seen), seen.grid, owner, classes)
            return Scores(teacher.refined(seen.attention, maps, owner, related).cpu().numpy())
        # One batch of both, over which the published mean of the relation runs, too.
        seen = teacher.look(torch.stack([pixels, pixels.flip(-1)]), dynamic=True)
        related = relation(self.head(seen.features, seen.grid).clean, settings)
        straight, mirrored = (
            teacher.scores.maps(view, seen.grid, owner, classes)
            for view in teacher.features(seen, related).split(1)
        )
        maps = scale_maps(torch.maximum(straight, mirrored.flip(-1)))
        attention = None if seen.attention is None else seen.attention[:1]
        return Scores(teacher.refined(attention, maps, owner, related[:1]).cpu().numpy())

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """See `HeadNetwork.logits`."""
        features = self.config.refine.section(ExcelOptions).features
        seen = look(self._teacher.scores, images, features)
        decoded: Decoded = self.head(seen.features, seen.grid)
        return decoded.logits


def make_teacher(config: Config, classes: ClassList, inputs: EncoderInput, cache: Path) -> Teacher:
    """The teacher of a configuration."""
    settings = config.cams.patch_text
    bank = enriched_bank(inputs.clip, classes, config.clip.template, settings.tse, cache)
    return Teacher(
        PatchText(inputs.encoder, bank, settings), config.cams, config.refine.section(ExcelOptions)
    )


def _new_head(config: Config, classes: ClassList, inputs: EncoderInput, *, seed: int) -> Head:
    return new_head(
        inputs.encoder.depth, classes, config.refine.section(ExcelOptions), inputs, seed=seed
    )


refiner: Refiner = Excel()
