"""The frozen image encoder: tokens and attention of every block, and the last block for Grad-CAM.

It uses the parameters of an open_clip model with a forward pass of its own, so that attention can
be returned, averaged or replaced. Blocks whose attention is not needed use the fused kernel. Blocks
are numbered from 0. Tokens are ``(batch, 1 + patches, width)``, the class token first, patches in
row-major order. Nothing depends on the number of tokens. Eq. 2, 3 and 5 of docs/methods/clip-es.md.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip import attention
from wsss.clip.attention import AttentionOverride
from wsss.clip.block import Block
from wsss.clip.calibration import Calibration
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.last_block import LastBlock, run_last_block
from wsss.clip.layers import Norm, Precision, compute_dtype
from wsss.clip.position import Rounding, resize_positions


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


class ClipEncoder:
    """A frozen plain ViT CLIP image tower.

    Args:
        visual: open_clip's `VisionTransformer` (any patch, width and depth; class token; with or
            without the norm before the blocks; layer scale or not).
        logit_scale: factor of the cosines (100 for CLIP).
        precision: type of the weights of linear maps. Norms, softmax and the residual stream are
            always float32. On a CPU without bfloat16 instructions, where such products are many
            times slower than float32, the rounded weights are used in float32.
        rounding: precision to which the resized positional table is rounded.
        device: of the computation.

    Raises:
        UnsupportedEncoderError: the tower is no plain ViT (ResNet, attentional pooling, timm …).
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
        _check_plain(visual)
        self.device = torch.device(device)
        self.logit_scale = logit_scale
        self.rounding = rounding
        visual = visual.to(self.device)
        dtype = compute_dtype(precision, self.device)

        def load(parameter: Tensor) -> Tensor:
            return parameter.detach().to(getattr(torch, precision)).to(dtype)

        self._patch_weight = load(visual.get_submodule("conv1").get_parameter("weight"))
        self._class_token = visual.get_parameter("class_embedding").detach().float()
        self._positions = visual.get_parameter("positional_embedding").detach().float()
        self.native_grid = _pair(visual.grid_size)
        """Rows and columns that the positional table was learned for."""
        self._resized = ((0, 0), self._positions)
        norm = visual.get_submodule("ln_pre")
        self._first_norm = None if isinstance(norm, nn.Identity) else Norm.of(norm, "ln_pre")
        blocks = visual.get_submodule("transformer").get_submodule("resblocks")
        self.blocks = [Block.of(module, i, load) for i, module in enumerate(blocks.children())]
        self._final_norm = Norm.of(visual.get_submodule("ln_post"), "ln_post")
        self._norm_after_pool = bool(getattr(visual, "final_ln_after_pool", False))
        projection: Tensor | None = visual.proj  # type: ignore[assignment]
        self.projection = None if projection is None else load(projection).float()
        self.patch = _pair(visual.patch_size)
        self.parameter_count = sum(parameter.numel() for parameter in visual.parameters())

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self._class_token.shape[0])

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
        other._class_token = class_token * self._class_token
        if grid is not None:
            other._positions = resize_positions(self._positions, self.native_grid, grid)
            other.native_grid = grid
        other._resized = ((0, 0), other._positions)
        return other

    @torch.no_grad()
    def embed(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch tokens channels"], tuple[int, int]]:
        """Tokens before the first block, and the patch grid.

        Args:
            images: normalised; sides are multiples of the patch.

        Raises:
            ValueError: a side is no positive multiple of the patch.
        """
        height, width = images.shape[-2:]
        grid = (height // self.patch[0], width // self.patch[1])
        if min(grid) < 1 or (grid[0] * self.patch[0], grid[1] * self.patch[1]) != (height, width):
            raise ValueError(
                f"image of {height} x {width} pixels: sides must be multiples of the patch "
                f"{self.patch[0]} x {self.patch[1]}; resize with wsss.clip.images.input_size"
            )
        images = images.to(self.device, self._patch_weight.dtype)
        patches = F.conv2d(images, self._patch_weight, stride=self.patch)
        patches = patches.float().flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, h w, D)
        cls = self._class_token.expand(len(images), 1, -1)
        tokens = torch.cat([cls, patches], dim=1).add_(self._positions_on(grid))
        return (tokens if self._first_norm is None else self._first_norm(tokens)), grid

    def _positions_on(self, grid: tuple[int, int]) -> Float[Tensor, "tokens width"]:
        """The positional table of a grid; that of the last grid is at hand."""
        last, table = self._resized
        if last != grid:
            table = resize_positions(self._positions, self.native_grid, grid, self.rounding)
            self._resized = grid, table
        return table

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
        batch, length, _ = tokens.shape
        outputs, attention_maps, post_attention = {}, {}, {}
        total = tokens.new_zeros(batch, length, length) if attention_sum_of else None
        for index, block in enumerate(self.blocks[:until]):
            heads = block.split_heads(block.norm1(tokens))
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
    def last_block(self, tokens: Float[Tensor, "batch tokens width"]) -> LastBlock:
        """Run the last block on the output of the one before, ready for gradients of scores."""
        return run_last_block(
            self.blocks[-1], self._final_norm, tokens, norm_after_pool=self._norm_after_pool
        )

    @torch.no_grad()
    def last_attention(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens tokens"]:
        """Head-mean attention of the last block, without the rest of the block."""
        block = self.blocks[-1]
        return attention.explicit_with_mean(block.split_heads(block.norm1(tokens)))[1]

    @torch.no_grad()
    def normalize(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """The final norm, token by token."""
        return self._final_norm(tokens)

    @torch.no_grad()
    def project(self, features: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows embed_dim"]:
        """The visual projection into the space that images and texts share."""
        return features if self.projection is None else features @ self.projection


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    assert isinstance(value, tuple | list)
    return int(value[0]), int(value[1])


def _check_plain(visual: nn.Module) -> None:
    kind = type(visual).__name__
    if kind != "VisionTransformer" or not hasattr(visual, "class_embedding"):
        raise UnsupportedEncoderError(
            f"the image tower is {kind}, expected open_clip's VisionTransformer (a plain ViT CLIP "
            "such as ViT-B-16-quickgelu); ResNet, timm and attentional-pooling towers have no "
            "class token and patch tokens of the kind that Grad-CAM here needs"
        )
    if getattr(visual, "attn_pool", None) is not None:
        raise UnsupportedEncoderError(
            "the image tower pools by attention (CoCa style); use a CLIP whose vision_cfg has"
            " attentional_pool false"
        )
