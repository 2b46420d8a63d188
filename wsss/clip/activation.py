"""The activations of CLIP's feed-forward parts, and their slopes.

QuickGELU, ``x sigmoid(1.702 x)``, is ``silu(1.702 x) / 1.702``. The linear maps before and
after it apply the factors at no cost, so that one pass over the hidden values suffices, in place.
Activations here therefore take *scaled inputs* ``s = input_scale * x`` and return ``input_scale``
times the activation of ``x``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip.errors import UnsupportedEncoderError

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]


def activation_of(module: nn.Module, where: str) -> Activation:
    """The activation of an MLP of open_clip or timm.

    Raises:
        UnsupportedEncoderError: neither QuickGELU nor GELU.
    """
    if type(module).__name__ == "QuickGELU":
        return "quick_gelu"
    if type(module).__name__ == "GELUTanh":  # timm's
        return "gelu_tanh"
    if isinstance(module, nn.GELU):
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    raise UnsupportedEncoderError(
        f"{where} uses {type(module).__name__}, expected QuickGELU or GELU"
    )


def input_scale(kind: Activation) -> float:
    """Factor of the inputs and outputs of `activate_`."""
    return 1.702 if kind == "quick_gelu" else 1.0


def activate_(
    scaled: Float[Tensor, "*rows hidden"], kind: Activation
) -> Float[Tensor, "*rows hidden"]:
    """Apply the activation to scaled inputs, overwriting them where that saves memory."""
    if kind == "quick_gelu":
        return F.silu(scaled, inplace=True)
    return F.gelu(scaled, approximate="none" if kind == "gelu" else "tanh")


def slope(scaled: Float[Tensor, "*rows hidden"], kind: Activation) -> Float[Tensor, "*rows hidden"]:
    """Derivative of the activation (not scaled) at scaled inputs."""
    if kind == "quick_gelu":
        gate = torch.sigmoid(scaled)
        return (1 - gate).mul_(scaled).add_(1).mul_(gate)
    if kind == "gelu":
        density = torch.exp(-0.5 * scaled.square()) / math.sqrt(2 * math.pi)
        return 0.5 * (1 + torch.erf(scaled / math.sqrt(2))) + scaled * density
    rate, cubic = math.sqrt(2 / math.pi), 0.044715
    tanh = torch.tanh(rate * (scaled + cubic * scaled**3))
    inner = rate * (1 + 3 * cubic * scaled.square())
    return 0.5 * (1 + tanh) + 0.5 * scaled * (1 - tanh.square()) * inner
