"""WeCLIP (CVPR 2024): a decoder over frozen CLIP features, taught by CAMs that it helps to refine.

The frozen encoder gives features of all blocks and, with the tags, CAMs M_init. A small head fuses
the features (F_u) and decodes them into labels. Its teacher are pseudo labels made at every step:
M_init is spread along an affinity between patches, first plain attention, then (RFM) attention of
the blocks that agree with the learned affinity A_f; pixel-adaptive refinement follows. Symbols and
equations: docs/methods/weclip.md. Departures of the released code are options of
``refine.weclip``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wsss.cams.maps import resize_maps
from wsss.clip.input import EncoderInput
from wsss.clip.text.embeddings import text_bank
from wsss.config.model import Config
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Sample
from wsss.labels.prediction import Prediction
from wsss.refine.base import Refiner, Scores, TrainingResult
from wsss.refine.blocks.frozen import encode
from wsss.refine.blocks.head import Decoded, Head
from wsss.refine.blocks.losses import affinity_labels, affinity_loss, balanced_cross_entropy, window
from wsss.refine.blocks.model import HeadNetwork, new_head
from wsss.refine.blocks.pseudo_labels import ignore_band, padding_label
from wsss.refine.blocks.refinement import refined_cams
from wsss.refine.inference import Photo
from wsss.refine.inputs import CamSet, ImageCams
from wsss.refine.seed_set import SeedSet
from wsss.refine.training.crops import CropBatch, CropStream
from wsss.refine.training.image_labels import ImageLabels
from wsss.refine.training.task import training_task
from wsss.refine.training.trainer import Trainer
from wsss.refine.weclip.options import WeClipOptions
from wsss.refine.weclip.teacher import PseudoLabels, learned_affinity


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
    ) -> TrainingResult:
        """Train the head on crops; seeds are not looked at.

        Raises:
            TrainingStoppedError: asked to stop; the next call goes on.
            ValueError: the crop does not fit the patch, or there is no image.
        """
        refine, settings = config.refine, config.refine.section(WeClipOptions)
        inputs = EncoderInput(
            config.clip, cache, max_pixels=config.data.max_pixels, device=config.compute.device
        )
        labels, bank = None, None
        if settings.crop_visibility == "image":
            labels = ImageLabels(cams, inputs, ignore_band(settings), cache)
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
            padding=padding_label(settings),
        )
        head = _new_head(config, classes, inputs, seed=config.seed)
        trainer = Trainer[CropBatch](
            head,
            refine.train,
            seed=config.seed,
            work=work,
            task=training_task(config, classes, cams),
            description="WeCLIP",
        )
        teacher = PseudoLabels(config, inputs.encoder, bank)
        curve = trainer.fit(stream.batches, Step(config, head, teacher))
        own = sum(parameter.numel() for parameter in head.parameters())
        cost = trainer.efficiency("WeCLIP", own, own + inputs.encoder.parameter_count)
        return TrainingResult(head.state_dict(), curve, cost)

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
    """The losses of one training step (eq. 20): ``L = L_seg + 0.1 L_aff``.

    Args:
        config: reads refine.
        head: what is trained.
        teacher: makes the pseudo labels.
    """

    def __init__(self, config: Config, head: Head, teacher: PseudoLabels) -> None:
        self._settings = config.refine.section(WeClipOptions)
        self._head, self._teacher = head, teacher
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
        _, fused, logits = self._head(frozen.features, frozen.grid)
        affinity = learned_affinity(fused, self._settings)
        labels = teacher.labels(batch, frozen, affinity.detach() if rfm else None)
        pairs = affinity_labels(labels, self._grid, self._near)
        parts = {
            "segmentation": balanced_cross_entropy(logits, labels),
            "affinity": affinity_loss(affinity, pairs),
        }
        loss = parts["segmentation"] + self._settings.affinity_weight * parts["affinity"]
        return {"loss": loss} | parts


class _Trained(HeadNetwork):
    """The encoder with a trained head."""

    def __init__(self, config: Config, classes: ClassList, checkpoint: Path, cache: Path) -> None:
        inputs = EncoderInput(
            config.clip, cache, max_pixels=config.data.max_pixels, device=config.compute.device
        )
        head = _new_head(config, classes, inputs, seed=0)
        super().__init__(config, head, inputs, checkpoint, dropout=config.infer.dropout == "on")

    @torch.inference_mode()
    def cam_scores(self, photo: Photo, image: ImageCams) -> Scores:
        """The image's CAM, refined with the learned affinity."""
        self.draw_as(image.sample)
        settings = self.config.refine.section(WeClipOptions)
        encoder = self.inputs.encoder
        pixels = self.scaled(photo, 1.0)
        frozen = encode(encoder, pixels, attention_blocks=settings.rfm_blocks)
        assert frozen.attention is not None
        fused = self.head(frozen.features, frozen.grid).fused
        maps = torch.from_numpy(image.initial.astype(np.float32)).to(encoder.device)
        refined = refined_cams(
            frozen.attention,
            resize_maps(maps, frozen.grid),
            torch.zeros(len(maps), dtype=torch.long, device=encoder.device),
            self.config.cams,
            learned_affinity(fused, settings),
            settings.block_distance,
        )
        return Scores(refined.cpu().numpy())

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch labels rows columns"]:
        """See `HeadNetwork.logits`."""
        frozen = encode(self.inputs.encoder, images)
        decoded: Decoded = self.head(frozen.features, frozen.grid)
        return decoded.logits


def _new_head(config: Config, classes: ClassList, inputs: EncoderInput, *, seed: int) -> Head:
    blocks = inputs.encoder.depth - 1
    return new_head(blocks, classes, config.refine.section(WeClipOptions), inputs, seed=seed)


refiner: Refiner = WeClip()
