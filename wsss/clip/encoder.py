"""The frozen image encoder: tokens and attention of every block, and the last block re-run.

It uses the parameters of an open_clip model and its own forward pass, so that attention can be
returned, averaged or rewritten, and blocks whose attention nobody asks for use the fused kernel.
Blocks are numbered from 0. Tokens are ``(batch, 1 + patches, width)``, the class token first,
patches in row-major order. Nothing depends on the number of tokens: an image of 76 patches is an
image like any other. Eq. 2, 3 and 5 of docs/methods/clip-es.md.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip import attention
from wsss.clip.attention import AttentionRewrite
from wsss.clip.block import Block
from wsss.clip.calibration import Calibration
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.last_block import LastBlock, run_last_block
from wsss.clip.layers import Norm
from wsss.clip.position import Rounding, resize_positions

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Encoding:
    """What a pass through (a part of) the encoder gave."""

    grid: tuple[int, int]
    tokens: Float[Tensor, "batch last_tokens width"]
    """Output of the last block that ran."""
    kept: dict[int, Float[Tensor, "batch tokens width"]] = field(default_factory=dict)
    """Outputs of the blocks that were asked for."""
    attention: dict[int, Float[Tensor, "batch tokens tokens"]] = field(default_factory=dict)
    """Head-mean attention of the blocks that were asked for."""
    attention_sum: Float[Tensor, "batch tokens tokens"] | None = None
    """Sum of the head-mean attention over the blocks whose sum was asked for."""
    middles: dict[int, Float[Tensor, "batch tokens width"]] = field(default_factory=dict)
    """Streams between attention and MLP of the blocks that were asked for."""


class ClipEncoder:
    """A frozen plain ViT CLIP image tower.

    Args:
        visual: open_clip's `VisionTransformer` (any patch, width and depth; class token; with or
            without the norm before the blocks; layer scale or not).
        logit_scale: factor of the cosines (100 for CLIP).
        precision: type of the weights of linear maps. Norms, softmax and the residual stream are
            float32 in any case. On a CPU without bfloat16 instructions, where such products are
            many times slower than float32, the rounded weights are kept and used in float32.
        rounding: precision to which the resized positional table is rounded.
        device: where to compute.

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
        dtype = _compute_dtype(precision, self.device)

        def load(parameter: Tensor) -> Tensor:
            rounded = parameter.detach().to(getattr(torch, precision))
            return rounded.to(dtype)

        self._patch_weight = load(visual.get_submodule("conv1").get_parameter("weight"))
        self._class_token = visual.get_parameter("class_embedding").detach().float()
        self._positions = visual.get_parameter("positional_embedding").detach().float()
        self._native_grid = _pair(visual.grid_size)
        norm = visual.get_submodule("ln_pre")
        self._first_norm = None if isinstance(norm, nn.Identity) else Norm.of(norm, "ln_pre")
        blocks = visual.get_submodule("transformer").get_submodule("resblocks")
        self.blocks = [
            Block.of(module, number, load) for number, module in enumerate(blocks.children())
        ]
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

    @property
    def native_grid(self) -> tuple[int, int]:
        """Rows and columns that the positional table was learned for."""
        return self._native_grid

    def adapted(self, *, grid: tuple[int, int] | None = None, class_token: int = 1) -> ClipEncoder:
        """An encoder with the same weights that enters images in another way.

        Args:
            grid: resize the positional table to this grid first, and from there to an image's.
            class_token: how many times the class embedding enters the class token.
        """
        other = copy.copy(self)
        other._class_token = class_token * self._class_token
        if grid is not None:
            other._positions = resize_positions(self._positions, self._native_grid, grid)
            other._native_grid = grid
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
        positions = resize_positions(self._positions, self._native_grid, grid, self.rounding)
        tokens = torch.cat([cls, patches], dim=1).add_(positions)
        return (tokens if self._first_norm is None else self._first_norm(tokens)), grid

    @torch.no_grad()
    def run(
        self,
        images: Float[Tensor, "batch 3 height width"],
        *,
        until: int | None = None,
        keep: Collection[int] = (),
        attention_of: Collection[int] = (),
        attention_sum_of: Collection[int] = (),
        rewrites: Mapping[int, AttentionRewrite] | None = None,
        middles: Collection[int] = (),
        beside: Calibration | None = None,
        class_token_last: bool = False,
    ) -> Encoding:
        """Run the blocks.

        Args:
            images: normalised; sides are multiples of the patch.
            until: number of blocks to run; None for all.
            keep: blocks whose output is returned.
            attention_of: blocks whose head-mean attention is returned.
            attention_sum_of: blocks whose head-mean attention is added up into one matrix.
            rewrites: blocks whose attention is replaced.
            middles: blocks whose stream between attention and MLP is returned.
            beside: a second stream that is made on the way.
            class_token_last: finish the last block for the class token alone, where nothing else of
                its output is needed; `Encoding.tokens` then has one token.

        Raises:
            ValueError: an image side is no multiple of the patch, a block does not exist or does
                not run, or a rewrite gives no map where attention is asked for.
        """
        until = self.depth if until is None else until
        rewrites = rewrites or {}
        wanted = {*keep, *attention_of, *attention_sum_of, *rewrites, *middles}
        if not 0 <= until <= self.depth or any(not 0 <= number < until for number in wanted):
            raise ValueError(
                f"blocks {sorted(wanted)} of {until}: the encoder has {self.depth}, numbered from 0"
            )
        tokens, grid = self.embed(images)
        batch, length, _ = tokens.shape
        kept, single, between = {}, {}, {}
        total = tokens.new_zeros(batch, length, length) if attention_sum_of else None
        for number, block in enumerate(self.blocks[:until]):
            heads = block.split_heads(block.norm1(tokens))
            summed, alone = number in attention_sum_of, number in attention_of
            if number in rewrites:
                mixed, mean = rewrites[number](heads)
                if mean is None and (summed or alone):
                    raise ValueError(
                        f"block {number}: its attention rewrite gives no map to return"
                    )
            elif class_token_last and number == until - 1 and not (summed or alone):
                mixed, mean = attention.fused(heads.of_class_token()), None
            elif summed and not alone and total is not None:
                # Sums over heads are scaled to means once, after the last block.
                mixed, mean = attention.explicit(heads, total), None
            elif summed or alone:
                mean = tokens.new_zeros(batch, length, length)
                mixed = attention.explicit(heads, mean)
                mean /= block.heads
            else:
                mixed, mean = attention.fused(heads), None
            if beside is not None:
                beside.follow(number, block, tokens, heads)
            if mean is not None and alone:
                single[number] = mean
            if mean is not None and summed and total is not None:
                total.add_(mean, alpha=block.heads)
            if class_token_last and number == until - 1:
                tokens, mixed = tokens[:, :1], mixed[:, :, :1]
            middle = block.add_attention(tokens, mixed)
            if number in middles:
                between[number] = middle
            tokens = block.add_mlp(middle)
            if number in keep:
                kept[number] = tokens
        if total is not None:
            total /= self.blocks[0].heads
        return Encoding(grid, tokens, kept, single, total, between)

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
        """Head-mean attention of the last block, without running what follows it."""
        block = self.blocks[-1]
        total = tokens.new_zeros(tokens.shape[0], tokens.shape[1], tokens.shape[1])
        attention.explicit(block.split_heads(block.norm1(tokens)), total)
        return total / block.heads

    @torch.no_grad()
    def normalize(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """The final norm, token by token."""
        return self._final_norm(tokens)

    @torch.no_grad()
    def project(self, features: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows joint"]:
        """The visual projection into the space shared with texts."""
        return features if self.projection is None else features @ self.projection


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones.

    Measured on a CPU without the instructions: 9 times slower. What torch calls supported is not
    enough to go by, since it includes processors on which the products are emulated.
    """
    if device.type != "cpu":
        return True
    if platform.machine().lower() in {"x86_64", "amd64"}:
        # Private, but the only way to ask; absent in some releases.
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in names)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "float32":
        return torch.float32
    return torch.bfloat16 if native_bfloat16(device) else torch.float32


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
