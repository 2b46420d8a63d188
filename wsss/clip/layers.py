"""Layer norms and linear maps with the weights of an open_clip module, and their gradients."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip.errors import UnsupportedEncoderError

Load = Callable[[Tensor], Tensor]
Precision = Literal["float32", "bfloat16"]


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
        """Zero mean and unit variance, no gain and bias; and the factor that scaled the input."""
        variance, mean = torch.var_mean(tokens, dim=-1, correction=0, keepdim=True)
        factor = torch.rsqrt(variance + self.eps)
        return (tokens - mean).mul_(factor), factor

    @staticmethod
    def of(module: nn.Module, where: str) -> Norm:
        """Take the weights of a layer norm.

        Raises:
            UnsupportedEncoderError: it is none, or has no bias.
        """
        if not isinstance(module, nn.LayerNorm) or module.bias is None:
            raise UnsupportedEncoderError(
                f"{where} is {type(module).__name__}, expected a LayerNorm"
            )
        return Norm(module.weight.detach().float(), module.bias.detach().float(), module.eps)


@dataclass(frozen=True)
class Linear:
    """A linear map in the type of its weight; the input is cast to it."""

    weight: Float[Tensor, "out_dim in_dim"]
    bias: Float[Tensor, " out_dim"]

    def __call__(
        self, rows: Float[Tensor, "*rows in_dim"], *, gain: float = 1.0, bias_gain: float = 1.0
    ) -> Float[Tensor, "*rows out_dim"]:
        """``gain W x + bias_gain b``; the factors cost no pass over memory."""
        flat = rows.to(self.weight.dtype).flatten(end_dim=-2)
        out = torch.addmm(self.bias, flat, self.weight.T, beta=bias_gain, alpha=gain)
        return out.view(*rows.shape[:-1], -1)

    def vjp(self, rows: Float[Tensor, "*rows out_dim"]) -> Float[Tensor, "*rows in_dim"]:
        """The transposed map, computed in the weight's type; float32 out."""
        return (rows.to(self.weight.dtype) @ self.weight).float()

    @staticmethod
    def of(weight: Tensor, bias: Tensor | None, load: Load) -> Linear:
        """Take weight and bias in the type that ``load`` gives them; no bias counts as zero."""
        bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
        return Linear(load(weight.detach()), load(bias.detach()))


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones.

    Measured on a CPU without the instructions: 9 times slower. torch's own notion of "supported"
    does not help: it includes processors on which the products are emulated.
    """
    if device.type != "cpu":
        return True
    if platform.machine().lower() in {"x86_64", "amd64"}:
        # Private, but the only way to tell; absent in some releases.
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in names)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type in which linear maps with weights of a precision are computed."""
    if precision == "float32":
        return torch.float32
    return torch.bfloat16 if native_bfloat16(device) else torch.float32
