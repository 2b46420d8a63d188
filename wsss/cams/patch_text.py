"""CAMs from the similarity of patches and texts, without a gradient (ExCEL).

Eq. 7-13 of docs/methods/excel.md. Patches and texts meet in CLIP's joint space. What all texts have
in common there is taken out (feature surgery), so that a map shows what speaks for its class more
than for the others.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss.cams.maps import Scaling, places_in_image, scale_maps
from wsss.clip.calibration import Calibration
from wsss.clip.encoder import ClipEncoder
from wsss.clip.self_attention import SelfAttention
from wsss.clip.text.embeddings import TextBank
from wsss.config.cams import PatchTextConfig

Score = Literal["surgery", "cosine"]
Extent = Literal["tokens", "patches"]

_PRIOR_SHARPNESS = 2.0


@torch.no_grad()
def text_weights(
    class_token: Float[Tensor, "batch joint"], texts: Float[Tensor, "texts joint"]
) -> Float[Tensor, "batch texts"]:
    """How much each text counts on an image: its share of a softmax, divided by the mean share.

    Args:
        class_token: features of the class token, normalised as the patches are.
        texts: unit vectors, backgrounds included.
    """
    share = torch.softmax(_PRIOR_SHARPNESS * class_token @ texts.T, dim=-1)
    return share * len(texts)


@torch.no_grad()
def similarity(
    features: Float[Tensor, "batch tokens joint"],
    texts: Float[Tensor, "texts joint"],
    owner: Int[Tensor, " rows"],
    wanted: Int[Tensor, " rows"],
    score: Score = "surgery",
) -> Float[Tensor, "rows tokens"]:
    """Similarity of every token of an image to some of the texts.

    ``surgery`` divides each channel by its length over the tokens (not each token by its length),
    weighs texts by `text_weights` and subtracts the mean over all texts. The subtraction is linear,
    so it is done once on the texts: S = F (w_t T_t - m), m = mean over t of w_t T_t. Nothing of
    the size tokens x texts x channels exists.

    Args:
        features: projected tokens of the images, class token first.
        texts: unit vectors of all classes and backgrounds.
        owner: the image of each row, in ascending order.
        wanted: the text of each row.
        score: ``cosine`` is the plain cosine of token and text.
    """
    if score == "cosine":
        unit = features / features.norm(dim=-1, keepdim=True).clamp_min(_tiny(features))
        directions = texts[wanted]
    else:
        unit = features / features.norm(dim=1, keepdim=True).clamp_min(_tiny(features))
        weights = text_weights(unit[:, 0], texts)
        common = weights @ texts / len(texts)  # (B, T) x (T, C)
        directions = weights[owner, wanted].unsqueeze(1) * texts[wanted] - common[owner]
    if len(owner) == 0:
        return features.new_zeros(0, features.shape[1])
    batch, place = len(features), places_in_image(owner, len(features))
    # Packed directions (R, C) -> padded (B, K, C), K the most classes of an image
    padded = directions.new_zeros(batch, 1 + int(place.max()), directions.shape[1])
    padded[owner, place] = directions
    # (B, K, C) x (B, C, N) -> (B, K, N) -> (R, N)
    found: Tensor = (padded @ unit.transpose(1, 2))[owner, place]
    return found


@torch.no_grad()
def maps_of(
    scores: Float[Tensor, "rows tokens"],
    grid: tuple[int, int],
    extent: Extent = "patches",
    scaling: Scaling = "exact",
) -> Float[Tensor, "rows height width"]:
    """Scale the similarities of each row to 0..1, and drop the class token.

    Args:
        scores: from `similarity`.
        grid: rows and columns of the patches.
        extent: whose extremes count: those of all tokens, as published, or of the patches alone.
        scaling: see `wsss.cams.maps.scale_maps`.
    """
    if extent == "patches":
        patches: Tensor = scores[:, 1:].unflatten(1, grid)  # (R, N) -> (R, h, w)
        return scale_maps(patches, scaling)
    scaled: Tensor = scale_maps(scores.unsqueeze(1), scaling)
    inner: Tensor = scaled[:, 0, 1:].unflatten(1, grid)
    return inner


@torch.no_grad()
def probabilities(
    class_token: Float[Tensor, "batch joint"],
    texts: Float[Tensor, "texts joint"],
    classes: int,
    owner: Int[Tensor, " rows"],
    wanted: Int[Tensor, " rows"],
    logit_scale: float,
) -> Float[Tensor, " rows"]:
    """Of each row's class among the image's own classes and the backgrounds, as CLIP sees it.

    Args:
        class_token: projected features of the class token.
        texts: classes, then backgrounds; unit vectors.
        classes: how many of the texts are classes.
        owner: the image of each row, in ascending order.
        wanted: the class of each row.
        logit_scale: factor of the cosines.
    """
    unit = class_token / class_token.norm(dim=-1, keepdim=True).clamp_min(_tiny(class_token))
    logits = logit_scale * unit @ texts.T
    allowed = torch.zeros_like(logits, dtype=torch.bool)
    allowed[:, classes:] = True
    allowed[owner, wanted] = True
    share = logits.masked_fill(~allowed, -torch.inf).softmax(-1)
    found: Tensor = share[owner, wanted]
    return found


class PatchText:
    """Static and shifted patch-text CAMs of a batch, from passes of the frozen encoder.

    Args:
        encoder: the frozen encoder.
        bank: text features, enriched or not.
        settings: cams.patch_text.

    Raises:
        ValueError: the encoder has fewer blocks.
    """

    def __init__(self, encoder: ClipEncoder, bank: TextBank, settings: PatchTextConfig) -> None:
        if settings.blocks > encoder.depth:
            raise ValueError(
                f"cams.patch_text.blocks is {settings.blocks}: the encoder has {encoder.depth}"
            )
        self.encoder, self._settings, self._extent = encoder, settings, settings.min_max_over
        self._classes = len(bank.classes)
        self._texts = torch.cat([bank.classes, bank.backgrounds]).to(encoder.device)
        self.first = encoder.depth - settings.blocks
        """First calibrated block."""
        self._rewrite = None
        if settings.relation != "none":
            self._rewrite = SelfAttention(settings.relation, settings.heads)

    def calibration(self, *, own_values: bool = False) -> Calibration | None:
        """A second stream for one pass of the encoder; None where CLIP's own features are meant."""
        if self._rewrite is None:
            return None
        return Calibration(self._rewrite, self.first, own_values=own_values)

    @property
    def gain(self) -> float:
        """How much a shift of the attention of all heads weighs; 0 without a calibration."""
        if self._rewrite is None:
            return 0.0
        return self._rewrite.gain(self.encoder.blocks[-1].heads)

    def features(
        self, stream: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens joint"]:
        """Tokens of a second stream in the joint space, class token first."""
        return self.encoder.project(self.encoder.normalize(stream))

    def maps(
        self,
        features: Float[Tensor, "batch tokens joint"],
        grid: tuple[int, int],
        owner: Int[Tensor, " rows"],
        classes: Int[Tensor, " rows"],
    ) -> Float[Tensor, "rows height width"]:
        """CAMs in 0..1 of the classes of each image.

        Args:
            features: from `features`.
            grid: rows and columns of the patches.
            owner: the image of each row, in ascending order.
            classes: the class of each row, 0-based.
        """
        scores = similarity(features, self._texts, owner, classes, self._settings.score)
        return maps_of(scores, grid, self._extent)

    def probabilities(
        self,
        features: Float[Tensor, "batch tokens joint"],
        owner: Int[Tensor, " rows"],
        classes: Int[Tensor, " rows"],
    ) -> Float[Tensor, " rows"]:
        """See `probabilities`."""
        scale = self.encoder.logit_scale
        return probabilities(features[:, 0], self._texts, self._classes, owner, classes, scale)

    def attention_weight(self, number: int) -> float:
        """What the head-mean attention of a block is multiplied by where blocks are averaged.

        The released code sums over the heads in the calibrated blocks and averages in the others.
        """
        mixed = self._settings.attention == "mixed" and number >= self.first
        return float(self.encoder.blocks[number].heads) if mixed else 1.0


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
