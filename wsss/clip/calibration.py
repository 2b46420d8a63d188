"""A second stream beside the frozen encoder's own: calibrated patch features (SVC, ExCEL).

Eq. 6 and 18 of docs/methods/excel.md. It starts as the input of the first calibrated block. Each of
these blocks adds to it what its values give when another attention mixes them; queries, keys and
values are those of the encoder's own stream, and the MLP is left out.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wsss.clip.attention import AttentionRewrite, Heads
from wsss.clip.block import Block


class Calibration:
    """Follows one pass of `ClipEncoder.run`.

    Args:
        rewrite: the attention of the second stream.
        first: first calibrated block; those after it are calibrated too.
        own_values: also add up what every token's own value gives, see `own_values`.
    """

    def __init__(self, rewrite: AttentionRewrite, first: int, *, own_values: bool = False) -> None:
        self._rewrite, self._first, self._wanted = rewrite, first, own_values
        self._stream: Tensor | None = None
        self._values: Tensor | None = None

    def follow(
        self,
        number: int,
        block: Block,
        tokens: Float[Tensor, "batch tokens width"],
        heads: Heads,
    ) -> None:
        """Take in a block: its input in the encoder's stream, and the heads made of that."""
        if number < self._first:
            return
        stream = tokens if self._stream is None else self._stream
        self._stream = block.add_attention(stream, self._rewrite(heads)[0])
        if self._wanted:
            values = block.values_through(heads)
            self._values = values if self._values is None else self._values.add_(values)

    def stream(
        self, tokens: Float[Tensor, "batch any width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """The second stream, with the class token of the encoder's own, as published.

        Args:
            tokens: of the encoder's last block; the class token is enough.

        Raises:
            ValueError: no calibrated block has run.
        """
        if self._stream is None:
            raise ValueError(f"the encoder did not run block {self._first}")
        return torch.cat([tokens[:, :1], self._stream[:, 1:]], dim=1)

    @property
    def own_values(self) -> Float[Tensor, "batch patches width"]:
        """U: what the patches' own values add to a stream, summed over the calibrated blocks.

        The same shift E of the attention between patches in every block moves the stream by
        ``gain * E U``, gain being that of the rewrite (eq. 18 of docs/methods/excel.md): no second
        pass is needed.

        Raises:
            ValueError: they were not asked for.
        """
        if self._values is None:
            raise ValueError("ask for own_values before the encoder runs")
        return self._values[:, 1:]
