"""A second stream along the frozen encoder: calibrated patch features (SVC, ExCEL).

It starts as the input of the first calibrated block. Each of these blocks adds to it what its
values give under another attention; queries, keys and values come from the encoder's stream, and
the MLP is left out. Eq. 6 and 18 of docs/methods/excel.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wsss.clip.attention import AttentionOverride, Heads
from wsss.clip.block import Block
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.trunk.parts import ResidualBlock


def check_linear(blocks: Sequence[ResidualBlock]) -> None:
    """Refuse blocks in which a shift of the attention does not act linearly (`value_updates`).

    Raises:
        UnsupportedEncoderError: they normalise what is attended to (EVA02).
    """
    if not all(isinstance(block, Block) for block in blocks):
        raise UnsupportedEncoderError(
            "refine.method excel shifts the attention of calibrated blocks, which is not linear in "
            "EVA02's blocks with their inner norm; take another encoder, e.g. ViT-B-16-quickgelu "
            "or ViT-L-14-quickgelu"
        )


class Calibration:
    """Follows one pass of `ClipEncoder.run`.

    Args:
        override: the attention of the second stream.
        first: first calibrated block; those after it are calibrated too.
        value_updates: also add up what each token's value gives, see `value_updates`.
    """

    def __init__(
        self, override: AttentionOverride, first: int, *, value_updates: bool = False
    ) -> None:
        self._override, self._first, self._sums_values = override, first, value_updates
        self._stream: Tensor | None = None
        self._value_sum: Tensor | None = None

    def follow(
        self,
        index: int,
        block: ResidualBlock,
        tokens: Float[Tensor, "batch tokens width"],
        heads: Heads,
    ) -> None:
        """Take in a block: its input in the encoder's stream, and the heads computed from it."""
        if index < self._first:
            return
        stream = tokens if self._stream is None else self._stream
        self._stream = block.add_attention(stream, self._override(heads)[0])
        if self._sums_values:
            assert isinstance(block, Block), "see check_linear"
            update = block.value_update(heads)
            self._value_sum = update if self._value_sum is None else self._value_sum.add_(update)

    def stream(
        self, tokens: Float[Tensor, "batch any width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """The second stream, with the class token of the encoder's stream, as published.

        Args:
            tokens: of the encoder's last block; the class token is enough.

        Raises:
            ValueError: no calibrated block has run.
        """
        if self._stream is None:
            raise ValueError(f"the encoder did not run block {self._first}")
        return torch.cat([tokens[:, :1], self._stream[:, 1:]], dim=1)

    @property
    def value_updates(self) -> Float[Tensor, "batch patches width"]:
        """U: what the patches' own values add to a stream, summed over the calibrated blocks.

        The same shift E of the attention between patches in every block moves the stream by
        ``gain * E U``, where gain is that of the override (eq. 18 of docs/methods/excel.md): no
        second pass is needed.

        Raises:
            ValueError: the calibration was built without ``value_updates``.
        """
        if self._value_sum is None:
            raise ValueError("build the calibration with value_updates before the encoder runs")
        return self._value_sum[:, 1:]
