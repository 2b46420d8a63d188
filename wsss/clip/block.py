"""The weights of one transformer block, taken from an open_clip module, and their arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip.attention import Heads
from wsss.clip.errors import UnsupportedEncoderError

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
Load = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the width, always in float32."""

    weight: Float[Tensor, " width"]
    bias: Float[Tensor, " width"]
    eps: float

    def __call__(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        return F.layer_norm(tokens.float(), self.weight.shape, self.weight, self.bias, self.eps)

    def standardize(
        self, tokens: Float[Tensor, "*rows width"]
    ) -> tuple[Float[Tensor, "*rows width"], Float[Tensor, "*rows 1"]]:
        """Zero mean and unit variance without gain and bias, and the factor that was applied."""
        variance, mean = torch.var_mean(tokens, dim=-1, correction=0, keepdim=True)
        factor = torch.rsqrt(variance + self.eps)
        return (tokens - mean).mul_(factor), factor

    @staticmethod
    def of(module: nn.Module, where: str) -> Norm:
        """Take the weights of a layer norm."""
        if not isinstance(module, nn.LayerNorm) or module.bias is None:
            raise UnsupportedEncoderError(
                f"{where} is {type(module).__name__}, expected a LayerNorm"
            )
        return Norm(module.weight.detach().float(), module.bias.detach().float(), module.eps)


@dataclass(frozen=True)
class Linear:
    """A linear map in the type of its weight; the input is cast to it."""

    weight: Float[Tensor, "out into"]
    bias: Float[Tensor, " out"] | None

    def __call__(self, rows: Float[Tensor, "*rows into"]) -> Float[Tensor, "*rows out"]:
        return F.linear(rows.to(self.weight.dtype), self.weight, self.bias)

    def pull_back(self, rows: Float[Tensor, "*rows out"]) -> Float[Tensor, "*rows into"]:
        """The transposed map, in the weight's type; float32 out."""
        return (rows.to(self.weight.dtype) @ self.weight).float()

    @staticmethod
    def of(weight: Tensor, bias: Tensor | None, load: Load) -> Linear:
        """Take weight and bias in the type that ``load`` gives them."""
        return Linear(load(weight), None if bias is None else load(bias))


@dataclass(frozen=True)
class Block:
    """A pre-norm transformer block: ``y = x + attn(norm1(x))``, then ``y + mlp(norm2(y))``."""

    norm1: Norm
    in_proj: Linear
    out_proj: Linear
    norm2: Norm
    up: Linear
    down: Linear
    gain1: Float[Tensor, " width"] | None
    """Layer scale after the attention, None without."""
    gain2: Float[Tensor, " width"] | None
    activation: Activation
    heads: int

    def split_heads(self, normed: Float[Tensor, "batch tokens width"]) -> Heads:
        """Queries, keys and values of the output of ``norm1``."""
        batch, tokens, width = normed.shape
        # (B, L, 3 D) -> (B, L, 3, H, d) -> (3, B, H, L, d)
        packed = self.in_proj(normed).view(batch, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = packed.permute(2, 0, 3, 1, 4).unbind(0)
        return Heads(queries, keys, values)

    def add_attention(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        mixed: Float[Tensor, "batch heads tokens head_width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Project the mixed values of the heads and add them to the residual stream."""
        # (B, H, L, d) -> (B, L, H, d) -> (B, L, D)
        return _add(tokens, self.out_proj(mixed.transpose(1, 2).flatten(2)), self.gain1)

    def add_mlp(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Add the feed-forward part to the residual stream."""
        hidden = activate_(self.up(self.norm2(tokens)), self.activation)
        return _add(tokens, self.down(hidden), self.gain2)

    @staticmethod
    def of(module: nn.Module, number: int, load: Load) -> Block:
        """Take the weights of an open_clip residual attention block.

        Args:
            module: the block.
            number: its place, for error messages.
            load: casts a parameter of a linear map to the type it is used in.

        Raises:
            UnsupportedEncoderError: the block is of another kind (normalised queries, cosine
                attention, extra norms …).
        """
        where = f"block {number}"
        attn, mlp = getattr(module, "attn", None), getattr(module, "mlp", None)
        if attn is None or mlp is None or not hasattr(attn, "in_proj_weight"):
            raise UnsupportedEncoderError(
                f"{where} is {type(module).__name__}, expected open_clip's residual block"
            )
        extras = {
            "normalised queries": getattr(attn, "ln_q", None),
            "inner norm": getattr(attn, "ln_inner", None),
            "norm after attention": getattr(module, "ln_attn", None),
            "norm inside the MLP": getattr(mlp, "ln", None),
        }
        found = [
            name
            for name, part in extras.items()
            if part is not None and not isinstance(part, nn.Identity)
        ]
        found += [
            name
            for name in ("logit_scale", "head_scale", "bias_k")
            if getattr(attn, name, None) is not None
        ]
        if found or attn.in_proj_weight is None:
            raise UnsupportedEncoderError(
                f"{where} has {', '.join(found) or 'separate projections'}; only plain softmax"
                f" attention is supported"
            )
        return Block(
            norm1=Norm.of(module.get_submodule("ln_1"), f"{where}.ln_1"),
            in_proj=Linear.of(attn.in_proj_weight, attn.in_proj_bias, load),
            out_proj=Linear.of(attn.out_proj.weight, attn.out_proj.bias, load),
            norm2=Norm.of(module.get_submodule("ln_2"), f"{where}.ln_2"),
            up=Linear.of(mlp.c_fc.weight, mlp.c_fc.bias, load),
            down=Linear.of(mlp.c_proj.weight, mlp.c_proj.bias, load),
            gain1=_gain(module, "ls_1"),
            gain2=_gain(module, "ls_2"),
            activation=activation_of(mlp.gelu, where),
            heads=attn.num_heads,
        )


def activation_of(module: nn.Module, where: str) -> Activation:
    """Which activation an open_clip MLP uses."""
    if type(module).__name__ == "QuickGELU":
        return "quick_gelu"
    if isinstance(module, nn.GELU):
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    raise UnsupportedEncoderError(
        f"{where} uses {type(module).__name__}, expected QuickGELU or GELU"
    )


def activate_(
    hidden: Float[Tensor, "*rows hidden"], kind: Activation
) -> Float[Tensor, "*rows hidden"]:
    """Apply the activation, overwriting ``hidden`` where that saves a pass over memory."""
    if kind == "quick_gelu":
        return hidden.mul_(torch.sigmoid(1.702 * hidden))
    return F.gelu(hidden, approximate="none" if kind == "gelu" else "tanh")


def activation_slope(
    hidden: Float[Tensor, "*rows hidden"], kind: Activation
) -> Float[Tensor, "*rows hidden"]:
    """Derivative of the activation at ``hidden``."""
    if kind == "quick_gelu":
        gate = torch.sigmoid(1.702 * hidden)
        return gate * (1 + 1.702 * hidden * (1 - gate))
    if kind == "gelu":
        density = torch.exp(-0.5 * hidden.square()) / math.sqrt(2 * math.pi)
        return 0.5 * (1 + torch.erf(hidden / math.sqrt(2))) + hidden * density
    slope, cubic = math.sqrt(2 / math.pi), 0.044715
    bend = torch.tanh(slope * (hidden + cubic * hidden**3))
    return 0.5 * (1 + bend) + 0.5 * hidden * (1 - bend.square()) * slope * (
        1 + 3 * cubic * hidden.square()
    )


def _add(tokens: Tensor, update: Tensor, gain: Tensor | None) -> Tensor:
    if update.dtype != tokens.dtype:
        update = update.to(tokens.dtype)
    if gain is not None:
        update *= gain
    return update.add_(tokens)  # the fresh update is overwritten, never the caller's tokens


def _gain(module: nn.Module, name: str) -> Tensor | None:
    scale = getattr(module, name, None)
    if scale is None or isinstance(scale, nn.Identity):
        return None
    gamma = scale.gamma
    assert isinstance(gamma, Tensor)
    return gamma.detach().float()
