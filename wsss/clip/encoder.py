"""The frozen image encoder: tokens and attention of every block, and the last block for Grad-CAM.

It uses the parameters of an open_clip model with a forward pass of its own, so that attention can
be returned, averaged or replaced. Blocks whose attention is not needed use the fused kernel. Blocks
are numbered from 0. Tokens are ``(batch, 1 + patches, width)``, the class token first, patches in
row-major order; a tower without a class token (SigLIP) has the patches alone. Nothing depends on
the number of tokens. Eq. 2, 3 and 5 of docs/methods/clip-es.md.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip import attention
from wsss.clip.attention import AttentionOverride
from wsss.clip.block import Block
from wsss.clip.calibration import Calibration
from wsss.clip.last_block import LastBlock, run_last_block
from wsss.clip.layers import Precision, compute_dtype
from wsss.clip.position import Rounding
from wsss.clip.trunk.embedding import TokenEmbedding
from wsss.clip.trunk.parts import Encoding, Grid
from wsss.clip.trunk.read import read_trunk
from wsss.clip.trunk.traced import TracedLastBlock, run_traced_last_block

ScoredBlock = LastBlock | TracedLastBlock
"""The last block's pass with gradients of scores: written out for CLIP's ViT, traced for others."""


class ClipEncoder:
    """A frozen image tower; `wsss.clip.trunk.read` says of which families.

    Args:
        visual: open_clip's `VisionTransformer` (any patch, width and depth; class token; with or
            without the norm before the blocks; layer scale or not), or its `TimmModel` of EVA or
            SigLIP.
        logit_scale: factor of the cosines (100 for CLIP).
        precision: type of the weights of linear maps. Norms, softmax and the residual stream are
            always float32. On a CPU without bfloat16 instructions, where such products are many
            times slower than float32, the rounded weights are used in float32.
        rounding: precision to which the resized positional table is rounded.

    Raises:
        UnsupportedEncoderError: the tower is of another family (ResNet, ConvNeXt, CoCa …).
    """

    def __init__(
        self,
        visual: nn.Module,
        *,
        logit_scale: float = 100.0,
        precision: Precision = "float32",
        rounding: Rounding = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.logit_scale = logit_scale
        visual = visual.to(self.device)
        dtype = compute_dtype(precision, self.device)

        def load(parameter: Tensor) -> Tensor:
            return parameter.detach().to(getattr(torch, precision)).to(dtype)

        self._trunk = trunk = read_trunk(visual, load)
        self._embedding = TokenEmbedding(trunk, rounding, self.device)
        self.blocks = trunk.blocks
        self.projection = trunk.projection
        self.patch = trunk.patch
        self.parameter_count = sum(parameter.numel() for parameter in visual.parameters())

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self._trunk.positions.shape[1])

    @property
    def family(self) -> str:
        """``ViT``, ``EVA`` or ``SigLIP``, for messages."""
        return self._trunk.family

    @property
    def has_class_token(self) -> bool:
        """Whether tokens have a class token in front; SigLIP's have none."""
        return self._trunk.has_class_token

    @property
    def native_grid(self) -> Grid:
        """Rows and columns that the positional table was learned for."""
        return self._embedding.grid

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def adapted(self, *, grid: tuple[int, int] | None = None, class_token: int = 1) -> ClipEncoder:
        """An encoder with the same weights that embeds images in another way.

        Args:
            grid: resize the positional table to this grid first, and from there to an image's.
            class_token: factor of the class embedding.
        """
        other = copy.copy(self)
        other._embedding = self._embedding.adapted(grid, class_token)
        return other

    @torch.no_grad()
    def embed(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch tokens channels"], Grid]:
        """Tokens before the first block, and the patch grid.

        Args:
            images: normalised; sides are multiples of the patch.

        Raises:
            ValueError: a side is no positive multiple of the patch.
        """
        return self._embedding(images)

    @torch.no_grad()
    def run(
        self,
        images: Float[Tensor, "batch 3 height width"],
        *,
        until: int | None = None,
        outputs_of: Collection[int] = (),
        post_attention_of: Collection[int] = (),
        attention_of: Collection[int] = (),
        attention_sum_of: Collection[int] = (),
        attention_overrides: Mapping[int, AttentionOverride] | None = None,
        calibration: Calibration | None = None,
        class_token_last: bool = False,
    ) -> Encoding:
        """Run the blocks.

        Args:
            images: normalised; sides are multiples of the patch.
            until: number of blocks to run; None for all.
            outputs_of: blocks whose output is returned.
            post_attention_of: blocks whose stream between attention and MLP is returned.
            attention_of: blocks whose head-mean attention is returned.
            attention_sum_of: blocks whose head-mean attention is summed into one matrix.
            attention_overrides: replaces the attention of blocks.
            calibration: a second stream to compute on the way.
            class_token_last: finish the last block for the class token alone, where nothing else of
                its output is needed; `Encoding.tokens` then has one token.

        Raises:
            ValueError: an image side is no multiple of the patch, a block does not exist or does
                not run, or an override gives no attention where it is to be returned.
        """
        until = self.depth if until is None else until
        overrides = attention_overrides or {}
        named = {*outputs_of, *post_attention_of, *attention_of, *attention_sum_of, *overrides}
        if not 0 <= until <= self.depth or any(not 0 <= index < until for index in named):
            raise ValueError(
                f"blocks {sorted(named)} of {until}: the encoder has {self.depth}, numbered from 0"
            )
        tokens, grid = self.embed(images)
        rotation = self._embedding.rotation(grid)
        batch, length, _ = tokens.shape
        outputs, attention_maps, post_attention = {}, {}, {}
        total = tokens.new_zeros(batch, length, length) if attention_sum_of else None
        for index, block in enumerate(self.blocks[:until]):
            heads = block.split_heads(block.norm1(tokens), rotation)
            summed, returned = index in attention_sum_of, index in attention_of
            for_class_token = class_token_last and index == until - 1
            mean = None
            if index in overrides:
                attended, mean = overrides[index](heads)
                if mean is None and (summed or returned):
                    raise ValueError(
                        f"block {index}: its attention override gives no attention to return"
                    )
            elif for_class_token and not (summed or returned):
                attended = attention.fused(heads.of_class_token())
            elif summed and not returned and total is not None:
                # Sums over heads are scaled to means once, after the last block.
                attended = attention.explicit(heads, total)
            elif summed or returned:
                attended, mean = attention.explicit_with_mean(heads)
            else:
                attended = attention.fused(heads)
            if calibration is not None:
                calibration.follow(index, block, tokens, heads)
            if mean is not None and returned:
                attention_maps[index] = mean
            if mean is not None and summed and total is not None:
                total.add_(mean, alpha=block.heads)
            if for_class_token:
                tokens, attended = tokens[:, :1], attended[:, :, :1]
            tokens = block.add_attention(tokens, attended)
            if index in post_attention_of:
                post_attention[index] = tokens
            tokens = block.add_mlp(tokens)
            if index in outputs_of:
                outputs[index] = tokens
        if total is not None:
            total /= self.blocks[0].heads
        return Encoding(grid, tokens, outputs, post_attention, attention_maps, total)

    @torch.no_grad()
    def last_block(
        self, tokens: Float[Tensor, "batch tokens width"], grid: Grid | None = None
    ) -> ScoredBlock:
        """Run the last block on the output of the one before, ready for gradients of scores.

        Scores depend on the mean of the patches after the final norm; where attention pools, on
        what it gives.

        Args:
            tokens: output of the block before.
            grid: rows and columns of the patches; needed where queries and keys are turned (EVA).

        Raises:
            ValueError: the grid is needed.
        """
        trunk, block = self._trunk, self.blocks[-1]
        if isinstance(block, Block) and trunk.pool is None:
            return run_last_block(
                block, trunk.final_norm, tokens, norm_after_pool=trunk.norm_after_pool
            )
        patches = tokens.shape[1] - self.has_class_token
        return run_traced_last_block(
            block, self._pool, tokens, patches, self._embedding.rotation(grid)
        )

    def _pool(self, patches: Float[Tensor, "batch patches width"]) -> Float[Tensor, "batch width"]:
        """The input of the visual projection, of patches alone."""
        trunk = self._trunk
        if trunk.norm_after_pool:
            return trunk.final_norm(patches.mean(1))
        normed = trunk.final_norm(patches)
        return normed.mean(1) if trunk.pool is None else trunk.pool(normed)

    @torch.no_grad()
    def last_attention(
        self, tokens: Float[Tensor, "batch tokens width"], grid: Grid | None = None
    ) -> Float[Tensor, "batch tokens tokens"]:
        """Head-mean attention of the last block, without the rest of the block.

        Arguments and errors as for `last_block`.
        """
        block = self.blocks[-1]
        heads = block.split_heads(block.norm1(tokens), self._embedding.rotation(grid))
        return attention.explicit_with_mean(heads)[1]

    @torch.no_grad()
    def encode_image(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed_dim"]:
        """The model's own embedding of images, as open_clip's ``encode_image``; not normalised.

        It is that of the class token, of the mean of the patches (CLIPA), or what attention pools.

        Args:
            images: normalised; sides are multiples of the patch.
        """
        if self._trunk.reads_class_token:
            tokens = self.run(images, class_token_last=True).tokens
            return self.project(self.normalize(tokens[:, 0]))
        tokens = self.run(images).tokens
        return self.project(self._pool(tokens[:, int(self.has_class_token) :]))

    @torch.no_grad()
    def normalize(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """The final norm, token by token."""
        return self._trunk.final_norm(tokens)

    @torch.no_grad()
    def project(self, features: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows embed_dim"]:
        """The visual projection into the space that images and texts share."""
        if self.projection is None:
            return features
        projected, bias = features @ self.projection, self._trunk.projection_bias
        return projected if bias is None else projected + bias
