"""What the encoder takes from an image tower, whatever its family, and what a pass gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from wsss.clip.attention import Heads
from wsss.clip.layers import Norm
from wsss.clip.trunk.pooling import AttentionPool

Grid = tuple[int, int]
Rotation = Float[Tensor, "2 patches head_width"]
"""Sine and cosine of the angles by which the queries and keys of each patch are turned."""


@runtime_checkable
class ResidualBlock(Protocol):
    """A pre-norm transformer block: ``y = x + attn(norm1(x))``, then ``y + mlp(y)``.

    `wsss.clip.block.Block` is CLIP's; `wsss.clip.trunk.eva.EvaBlock` that of EVA02.
    """

    @property
    def norm1(self) -> Norm: ...
    @property
    def heads(self) -> int: ...

    def split_heads(
        self, normed: Float[Tensor, "batch tokens width"], rotation: Rotation | None = None
    ) -> Heads:
        """Queries, keys and values of the output of ``norm1``."""
        ...

    def add_attention(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        attended: Float[Tensor, "batch heads tokens head_width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Project the attended values of the heads and add them to the residual stream."""
        ...

    def add_mlp(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Add the feed-forward part to the residual stream."""
        ...


@dataclass(frozen=True)
class Trunk:
    """Parts of an image tower."""

    family: str
    """For messages: ``ViT``, ``EVA``, ``SigLIP``."""
    patch: Grid
    """Height and width of a patch, pixels."""
    grid: Grid
    """Rows and columns that the positional table was learned for."""
    patch_weight: Float[Tensor, "width 3 height across"]
    patch_bias: Float[Tensor, " width"] | None
    class_token: Float[Tensor, " width"] | None
    """None: patches alone."""
    positions: Float[Tensor, "tokens width"]
    """The row of the class token first, if there is one."""
    first_norm: Norm | None
    blocks: Sequence[ResidualBlock]
    final_norm: Norm
    norm_after_pool: bool
    """Whether the model averages before the final norm."""
    reads_class_token: bool
    """Whether the model's own embedding of an image is that of the class token."""
    projection: Float[Tensor, "width embed_dim"] | None
    projection_bias: Float[Tensor, " embed_dim"] | None = None
    pool: AttentionPool | None = None
    """What makes the image's embedding of the patches where there is no class token."""
    rotate: Callable[[Grid], Rotation] | None = None
    """Rotary position embedding of a grid, float32; None: the table alone gives positions."""

    @property
    def has_class_token(self) -> bool:
        """Whether tokens have a class token in front; SigLIP's have none."""
        return self.class_token is not None


@runtime_checkable
class Tower(Protocol):
    """What tells which methods an image tower can serve: a `Trunk`, or an encoder made of it."""

    @property
    def family(self) -> str: ...
    @property
    def has_class_token(self) -> bool: ...
    @property
    def blocks(self) -> Sequence[ResidualBlock]: ...


@dataclass(frozen=True)
class Encoding:
    """The results of a pass through the encoder, or through its first blocks."""

    grid: tuple[int, int]
    tokens: Float[Tensor, "batch last_tokens width"]
    """Output of the last block that ran."""
    outputs: dict[int, Float[Tensor, "batch tokens width"]] = field(default_factory=dict)
    """Outputs of the blocks in ``outputs_of``."""
    post_attention: dict[int, Float[Tensor, "batch tokens width"]] = field(default_factory=dict)
    """Streams between attention and MLP of the blocks in ``post_attention_of``."""
    attention: dict[int, Float[Tensor, "batch tokens tokens"]] = field(default_factory=dict)
    """Head-mean attention of the blocks in ``attention_of``."""
    attention_sum: Float[Tensor, "batch tokens tokens"] | None = None
    """Sum of the head-mean attention over the blocks in ``attention_sum_of``."""
