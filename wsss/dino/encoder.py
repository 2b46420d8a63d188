"""The frozen DINOv2: patch tokens after the final norm, and of any block, on a grid of its own.

It uses the parameters of a timm model with a forward pass of its own, which resizes the positional
table as the release does, and the blocks of `wsss.clip`, whose rules of precision and device hold
here too. Blocks are numbered from 0. Patches are in row-major order. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip import attention
from wsss.clip.block import Block
from wsss.clip.images import IMAGENET_MEAN, IMAGENET_STD, Channels
from wsss.clip.layers import Linear, Load, Norm, Precision, compute_dtype
from wsss.compute.packed_rows import to_device
from wsss.dino.position import resize_positions


@dataclass(frozen=True)
class DinoFeatures:
    """One pass of the encoder."""

    grid: tuple[int, int]
    """Rows and columns of patches."""
    tokens: Float[Tensor, "batch patches width"]
    """Patch tokens after the final norm; no class token, no registers."""
    outputs: dict[int, Float[Tensor, "batch patches width"]] = field(default_factory=dict)
    """Patch tokens that the asked blocks gave, without the final norm."""


class DinoEncoder:
    """A frozen DINOv2.

    Args:
        model: timm's `VisionTransformer` with the weights.
        digest: sha256 over weights and sizes.
        precision: type of the weights of linear maps; see `wsss.clip.encoder.ClipEncoder`.
    """

    normalization: tuple[Channels, Channels] = (IMAGENET_MEAN, IMAGENET_STD)
    """Mean and standard deviation of the images that it was trained with."""

    def __init__(
        self,
        model: nn.Module,
        *,
        digest: str,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        self.device, self.digest = torch.device(device), digest
        model = model.to(self.device)
        dtype = compute_dtype(precision, self.device)

        def load(parameter: Tensor) -> Tensor:
            return parameter.detach().to(getattr(torch, precision)).to(dtype)

        convolution = model.get_submodule("patch_embed.proj")
        self._patch_weight = load(convolution.get_parameter("weight"))
        self._patch_bias = load(convolution.get_parameter("bias"))
        self.patch = (self._patch_weight.shape[2], self._patch_weight.shape[3])
        """Height and width of a patch, pixels."""
        table = model.get_parameter("pos_embed").detach().float()[0]
        self._first = model.get_parameter("cls_token").detach().float()  # (1, 1, D)
        self.registers = 0
        """Number of register tokens."""
        if getattr(model, "reg_token", None) is not None:
            # The class token holds its row of the positional table; registers have none.
            registers = model.get_parameter("reg_token").detach().float()
            self.registers = registers.shape[1]
            self._first = torch.cat([self._first, registers], dim=1)
        else:
            self._first = self._first + table[:1]
            table = table[1:]
        self._positions = table
        side = round(len(table) ** 0.5)
        self.native_grid = (side, side)
        """Rows and columns that the positional table was learned for."""
        self._resized = (self.native_grid, table)
        self.blocks = [
            _block(module, index, load)
            for index, module in enumerate(model.get_submodule("blocks").children())
        ]
        self._final_norm = Norm.of(model.get_submodule("norm"), "norm")
        self.parameter_count = sum(parameter.numel() for parameter in model.parameters())
        self._colours: dict[tuple[Channels, Channels], tuple[Tensor, Tensor]] = {}

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self._first.shape[2])

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @torch.no_grad()
    def whole_patches(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 rows columns"]:
        """Images resized to whole patches, rounded down: bilinear, without antialias.

        Raises:
            ValueError: a side is smaller than a patch.
        """
        height, width = images.shape[-2:]
        size = (height // self.patch[0] * self.patch[0], width // self.patch[1] * self.patch[1])
        if min(size) < 1:
            raise ValueError(
                f"image of {height} x {width} pixels: is smaller than a patch of DINOv2 "
                f"({self.patch[0]} x {self.patch[1]})"
            )
        if size == (height, width):
            return images
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)

    def renormalized(
        self, images: Float[Tensor, "batch 3 height width"], mean: Channels, std: Channels
    ) -> Float[Tensor, "batch 3 height width"]:
        """Images with this encoder's normalisation, from those with another.

        Args:
            images: normalised by ``mean`` and ``std``.
            mean: of each colour, in 0 … 1.
            std: of each colour, in 0 … 1.
        """
        theirs = (mean, std)
        if theirs == self.normalization:
            return images
        if theirs not in self._colours:
            old_mean, old_std = torch.tensor(theirs, dtype=torch.float64)
            new_mean, new_std = torch.tensor(self.normalization, dtype=torch.float64)
            # (3,) -> (3, 1, 1)
            factor, shift = old_std / new_std, (old_mean - new_mean) / new_std
            shaped = (part.float().view(3, 1, 1).to(self.device) for part in (factor, shift))
            self._colours[theirs] = (next(shaped), next(shaped))
        factor, shift = self._colours[theirs]
        return torch.addcmul(shift, images, factor)

    @torch.no_grad()
    def encode(
        self, images: Float[Tensor, "batch 3 height width"], *, outputs_of: Collection[int] = ()
    ) -> DinoFeatures:
        """Run the blocks (eq. 4 of docs/methods/weclip-plus.md).

        Args:
            images: with this encoder's normalisation, at least a patch; resized by
                `whole_patches`.
            outputs_of: blocks whose patch tokens are returned as well.

        Raises:
            ValueError: an image is smaller than a patch, or a block does not exist.
        """
        if unknown := sorted(index for index in outputs_of if not 0 <= index < self.depth):
            raise ValueError(f"blocks {unknown}: DINOv2 here has {self.depth}, numbered from 0")
        images = self.whole_patches(to_device(images, self.device))
        grid = (images.shape[2] // self.patch[0], images.shape[3] // self.patch[1])
        weight, bias = self._patch_weight, self._patch_bias
        patches = F.conv2d(images.to(weight.dtype), weight, bias, stride=self.patch)
        patches = patches.float().flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, h w, D)
        first = self._first.expand(len(images), -1, -1)
        tokens = torch.cat([first, patches + self._positions_on(grid)], dim=1)
        before, outputs = first.shape[1], {}
        for index, block in enumerate(self.blocks):
            heads = block.split_heads(block.norm1(tokens))
            tokens = block.add_mlp(block.add_attention(tokens, attention.fused(heads)))
            if index in outputs_of:
                outputs[index] = tokens[:, before:]
        return DinoFeatures(grid, self._final_norm(tokens[:, before:]), outputs)

    def _positions_on(self, grid: tuple[int, int]) -> Float[Tensor, "patches width"]:
        """The positional table of a grid; that of the last grid is at hand."""
        last, table = self._resized
        if last != grid:
            registers = self.registers > 0
            table = resize_positions(self._positions, self.native_grid, grid, registers=registers)
            self._resized = grid, table
        return table


def _block(module: nn.Module, index: int, load: Load) -> Block:
    """The weights of one of timm's blocks."""
    attn, mlp = module.get_submodule("attn"), module.get_submodule("mlp")
    qkv, projection = attn.get_submodule("qkv"), attn.get_submodule("proj")
    fc1, fc2 = mlp.get_submodule("fc1"), mlp.get_submodule("fc2")
    heads = attn.num_heads
    assert isinstance(heads, int)
    return Block(
        norm1=Norm.of(module.get_submodule("norm1"), f"block {index}.norm1"),
        in_proj=Linear.of(qkv.get_parameter("weight"), qkv.get_parameter("bias"), load),
        out_proj=Linear.of(
            projection.get_parameter("weight"), projection.get_parameter("bias"), load
        ),
        norm2=Norm.of(module.get_submodule("norm2"), f"block {index}.norm2"),
        fc1=Linear.of(fc1.get_parameter("weight"), fc1.get_parameter("bias"), load),
        fc2=Linear.of(fc2.get_parameter("weight"), fc2.get_parameter("bias"), load),
        gain1=module.get_parameter("ls1.gamma").detach().float(),
        gain2=module.get_parameter("ls2.gamma").detach().float(),
        activation="gelu",
        heads=heads,
    )
