"""CAMs from the similarity of patches and texts, without a gradient (ExCEL).

Eq. 7-13 of docs/methods/excel.md. Patches and texts share CLIP's embedding space. What all texts
have in common there is subtracted (feature surgery), so that a map shows evidence for its class
more than for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss.cams.maps import pack_classes, scale_maps
from wsss.cams.views import Evidence
from wsss.clip.calibration import Calibration
from wsss.clip.encoder import ClipEncoder
from wsss.clip.self_attention import SelfAttention
from wsss.clip.text.embeddings import TextBank
from wsss.clip.trunk.check import refuse_pooled
from wsss.clip.trunk.parts import Tower
from wsss.compute.packed_rows import padded_slots, to_device
from wsss.config.cams import PatchTextConfig

Score = Literal["surgery", "cosine"]
Extent = Literal["tokens", "patches"]

_PRIOR_SHARPNESS = 2.0


@torch.no_grad()
def text_weights(
    class_token: Float[Tensor, "batch embed_dim"], texts: Float[Tensor, "texts embed_dim"]
) -> Float[Tensor, "batch texts"]:
    """Weight of each text on an image: its softmax probability, divided by the mean probability.

    Args:
        class_token: features of the class token, normalised as the patches are.
        texts: unit vectors, backgrounds included.
    """
    probs = torch.softmax(_PRIOR_SHARPNESS * class_token @ texts.T, dim=-1)
    return probs * len(texts)


@torch.no_grad()
def similarity(
    features: Float[Tensor, "batch tokens embed_dim"],
    texts: Float[Tensor, "texts embed_dim"],
    image_index: Int[Tensor, " rows"],
    text_index: Int[Tensor, " rows"],
    score: Score = "surgery",
) -> Float[Tensor, "rows tokens"]:
    """Similarity of every token of an image to some of the texts.

    ``surgery`` divides each channel by its length over the tokens (not each token by its length),
    weights texts by `text_weights` and subtracts the mean over all texts. The subtraction is
    linear, so it is done once on the texts: S = F (w_t T_t - m), m = mean over t of w_t T_t. No
    tensor of the size tokens x texts x channels is built.

    Args:
        features: projected tokens of the images, class token first.
        texts: unit vectors of all classes and backgrounds.
        image_index: the image of each row, in ascending order; best on the CPU.
        text_index: the text of each row; on any device.
        score: ``cosine`` is the plain cosine of token and text.
    """
    image, slot, most = padded_slots(image_index, len(features), features.device)
    text_index = to_device(text_index, features.device)
    if score == "cosine":
        unit = features / features.norm(dim=-1, keepdim=True).clamp_min(_tiny(features))
        directions = texts[text_index]
    else:
        unit = features / features.norm(dim=1, keepdim=True).clamp_min(_tiny(features))
        weights = text_weights(unit[:, 0], texts)
        common = weights @ texts / len(texts)  # (B, T) x (T, C)
        directions = weights[image, text_index].unsqueeze(1) * texts[text_index]
        directions = directions - common[image]
    if len(image_index) == 0:
        return features.new_zeros(0, features.shape[1])
    # Packed directions (R, C) -> padded (B, K, C), K the most classes of an image
    padded = directions.new_zeros(len(features), most, directions.shape[1])
    padded[image, slot] = directions
    # (B, K, C) x (B, C, N) -> (B, K, N) -> (R, N)
    return (padded @ unit.transpose(1, 2))[image, slot]


@torch.no_grad()
def maps_of(
    scores: Float[Tensor, "rows tokens"],
    grid: tuple[int, int],
    extent: Extent = "patches",
) -> Float[Tensor, "rows height width"]:
    """Scale the similarities of each row to 0..1, and drop the class token.

    Args:
        scores: from `similarity`.
        grid: rows and columns of the patches.
        extent: whose extremes scale a map: those of all tokens, as published, or of the patches.
    """
    if extent == "patches":
        return scale_maps(scores[:, 1:].unflatten(1, grid))  # (R, N) -> (R, h, w)
    return scale_maps(scores.unsqueeze(1))[:, 0, 1:].unflatten(1, grid)


@torch.no_grad()
def probabilities(
    class_token: Float[Tensor, "batch embed_dim"],
    texts: Float[Tensor, "texts embed_dim"],
    classes: int,
    image_index: Int[Tensor, " rows"],
    class_index: Int[Tensor, " rows"],
    logit_scale: float,
) -> Float[Tensor, " rows"]:
    """CLIP's probability of each row's class among the image's classes and the backgrounds.

    Args:
        class_token: projected features of the class token.
        texts: classes, then backgrounds; unit vectors.
        classes: number of texts that are classes.
        image_index: the image of each row, in ascending order.
        class_index: the class of each row.
        logit_scale: factor of the cosines.
    """
    unit = class_token / class_token.norm(dim=-1, keepdim=True).clamp_min(_tiny(class_token))
    logits = logit_scale * unit @ texts.T
    rows = torch.stack([image_index, class_index])
    excluded = torch.ones(logits.shape, dtype=torch.bool, device=rows.device)
    excluded[:, classes:] = False
    excluded[rows[0], rows[1]] = False
    image, text = to_device(rows, logits.device)
    probs = logits.masked_fill(to_device(excluded, logits.device), -torch.inf).softmax(-1)
    return probs[image, text]


def check_patch_text(tower: Tower) -> None:
    """Refuse an image tower whose patches are not in the space of the texts.

    Raises:
        UnsupportedEncoderError: it has no class token (SigLIP).
    """
    refuse_pooled(
        tower,
        "CAMs of source patch_text compare",
        "set cams.source to grad_cam and take another refine.method than excel",
    )


class PatchText:
    """Static and shifted patch-text CAMs of a batch, from passes of the frozen encoder.

    Args:
        bank: text features, enriched or not.
        settings: section ``cams.patch_text``.

    Raises:
        ValueError: the encoder has fewer blocks.
        UnsupportedEncoderError: it has no class token, and so no patches that texts compare with.
    """

    def __init__(self, encoder: ClipEncoder, bank: TextBank, settings: PatchTextConfig) -> None:
        check_patch_text(encoder)
        if (blocks := settings.blocks_of(encoder.depth)) > encoder.depth:
            raise ValueError(f"cams.patch_text.blocks is {blocks}: the encoder has {encoder.depth}")
        self.encoder, self._settings, self._extent = encoder, settings, settings.min_max_over
        self._classes = len(bank.classes)
        self._texts = torch.cat([bank.classes, bank.backgrounds]).to(encoder.device)
        self.first = encoder.depth - blocks
        """First calibrated block."""
        self._override = None
        if settings.relation != "none":
            self._override = SelfAttention(settings.relation, settings.heads)

    def calibration(self, *, value_updates: bool = False) -> Calibration | None:
        """A second stream for one pass of the encoder; None where CLIP's own features are used."""
        if self._override is None:
            return None
        return Calibration(self._override, self.first, value_updates=value_updates)

    @property
    def gain(self) -> float:
        """Weight of a shift of the attention of all heads; 0 without a calibration."""
        if self._override is None:
            return 0.0
        return self._override.gain(self.encoder.blocks[-1].heads)

    def features(
        self, stream: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens embed_dim"]:
        """Tokens of a second stream in the space shared with texts, class token first."""
        return self.encoder.project(self.encoder.normalize(stream))

    def maps(
        self,
        features: Float[Tensor, "batch tokens embed_dim"],
        grid: tuple[int, int],
        image_index: Int[Tensor, " rows"],
        classes: Int[Tensor, " rows"],
    ) -> Float[Tensor, "rows height width"]:
        """CAMs in 0..1 of the classes of each image.

        Args:
            features: from `features`.
            grid: rows and columns of the patches.
            image_index: the image of each row, in ascending order.
            classes: the class of each row, 0-based.
        """
        scores = similarity(features, self._texts, image_index, classes, self._settings.score)
        return maps_of(scores, grid, self._extent)

    def probabilities(
        self,
        features: Float[Tensor, "batch tokens embed_dim"],
        image_index: Int[Tensor, " rows"],
        classes: Int[Tensor, " rows"],
    ) -> Float[Tensor, " rows"]:
        """See `probabilities`."""
        scale = self.encoder.logit_scale
        return probabilities(
            features[:, 0], self._texts, self._classes, image_index, classes, scale
        )

    def attention_weight(self, index: int) -> float:
        """Factor of a block's head-mean attention in the average over blocks.

        The released code sums over the heads in the calibrated blocks and averages in the others.
        """
        summed = self._settings.attention == "mixed" and index >= self.first
        return float(self.encoder.blocks[index].heads) if summed else 1.0

    @torch.no_grad()
    def evidence(
        self,
        images: Float[Tensor, "batch 3 height width"],
        classes: Sequence[Sequence[int]],
        attention_blocks: int = 0,
        patch_features: bool = False,
    ) -> Evidence:
        """Static similarities of images of one size, before they are scaled.

        The channels of `similarity` by surgery are divided by their length over the tokens, which
        grows with the root of their number.

        Args:
            images: normalised; sides are multiples of the patch.
            classes: indices into the bank's classes of each image; may be empty for an image.
            attention_blocks: number of last blocks whose attention is averaged; 0 returns none.
            patch_features: also return the patches in the space of the texts, calibrated if any.
        """
        encoder = self.encoder
        blocks = range(encoder.depth - attention_blocks, encoder.depth)
        mixed = self._settings.attention == "mixed"
        calibration = self.calibration()
        encoding = encoder.run(
            images,
            attention_of=blocks if mixed else (),
            attention_sum_of=() if mixed else blocks,
            calibration=calibration,
            class_token_last=calibration is not None,
        )
        tokens, attention = encoding.tokens, encoding.attention_sum
        if mixed and attention_blocks:
            weighted = [encoding.attention[i] * self.attention_weight(i) for i in blocks]
            attention = torch.stack(weighted).sum(0)
        image_index, class_index = pack_classes(classes)
        features = self.features(tokens if calibration is None else calibration.stream(tokens))
        score = self._settings.score
        scores = similarity(features, self._texts, image_index, class_index, score)
        return Evidence(
            image_index,
            scores[:, 1:].unflatten(1, encoding.grid),
            unit=features.shape[1] ** 0.5 if score == "surgery" else 1.0,
            class_token=scores[:, 0],
            probabilities=self.probabilities(features, image_index, class_index),
            attention=None if attention is None else attention / attention_blocks,
            features=features[:, 1:] if patch_features else None,
        )

    def scaled(self, evidence: Evidence) -> Float[Tensor, "rows height width"]:
        """The CAMs in 0..1 of what `evidence` gives."""
        token, grid = evidence.class_token, (evidence.maps.shape[1], evidence.maps.shape[2])
        assert token is not None
        scores = torch.cat([token[:, None], evidence.maps.flatten(1)], dim=1)
        return maps_of(scores, grid, self._extent)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
