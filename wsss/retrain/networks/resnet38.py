"""Wide ResNet38 as a backbone of mmsegmentation: model A1 of "Wider or Deeper" (Wu et al., 2019).

Seventeen residual blocks of the pre-activation kind: normalisation and ReLU come first, and where a
block changes the number of channels or the resolution, its shortcut is a 1x1 convolution of that
activation. The output stride is 8, as segmentation uses it: the last three stages do not stride,
and dilate instead.

| stage | blocks | channels | stride | dilation of the 3x3 convolutions |
|---|---|---|---|---|
| conv1a | one 3x3 convolution | 64 | 1 | 1 |
| b2 | 3 | 128 | 2 | 1 |
| b3 | 3 | 256 | 2 | 1 |
| b4 | 6 | 512 | 2 | 1 |
| b5 | 3 | 512 inside, 1024 | 1 | 2 (the very first: 1) |
| b6 | 1 bottleneck | 512, 1024 inside, 2048; dropout 0.3 | 1 | 4 |
| b7 | 1 bottleneck | 1024, 2048 inside, 4096; dropout 0.5 | 1 | 4 |
| bn7 | normalisation and ReLU | 4096 | | |

Modules are named as in the PyTorch files of the ImageNet weights that circulate (``b4_5`` is the
sixth block of stage 4, ``conv_branch2b1`` the second convolution of a block, ``conv_branch1`` its
shortcut), so that these fit by name; `wsss.retrain.weights.naming` renames the authors' MXNet file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.retrain.mm import MODELS, BaseModule, BatchNorm, build_norm_layer

_BLOCKS = {2: 3, 3: 3, 4: 6, 5: 3}
_Norm = Callable[[int], nn.Module]


@MODELS.register_module()
class ResNet38(BaseModule):  # type: ignore[misc]
    """The backbone; 105,070,912 parameters.

    Args:
        norm_cfg: normalisation layers, as mmsegmentation's backbones take it.
        norm_eval: batch normalisation uses its running statistics while training too.
        base_channels: channels of conv1a, of which the others are multiples.
        dropout: of whole channels inside b6 and b7.
        init_cfg: initialisation, as mmsegmentation's backbones take it.
    """

    def __init__(
        self,
        norm_cfg: Mapping[str, Any] | None = None,
        norm_eval: bool = False,
        base_channels: int = 64,
        dropout: tuple[float, float] = (0.3, 0.5),
        init_cfg: Any = None,
    ) -> None:
        kaiming = [
            {"type": "Kaiming", "layer": "Conv2d"},
            {"type": "Constant", "val": 1, "layer": "_BatchNorm"},
        ]
        super().__init__(init_cfg or kaiming)
        self.norm_eval = norm_eval
        norm = functools.partial(_norm, dict(norm_cfg or {"type": "BN", "requires_grad": True}))
        base = base_channels
        self.conv1a = _conv(3, base)
        width = base
        for stage, blocks in _BLOCKS.items():
            inside, out = (8 * base, 16 * base) if stage == 5 else (base << (stage - 1),) * 2
            for index in range(blocks):
                first = index == 0
                dilation = (1, 1) if stage < 5 else (1 if first else 2, 2)
                block = _Block(width, inside, out, 2 if first and stage < 5 else 1, dilation, norm)
                self.add_module(f"b{stage}" if first else f"b{stage}_{index}", block)
                width = out
        self.b6 = _Bottleneck(width, 32 * base, 4, dropout[0], norm)
        self.b7 = _Bottleneck(32 * base, 64 * base, 4, dropout[1], norm)
        self.bn7 = norm(64 * base)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channels h w"]]:
        """Features at an eighth of the image's sides (rounded up)."""
        features = self.conv1a(images)
        for name, module in self.named_children():
            if name not in ("conv1a", "bn7"):
                features = module(features)
        return (F.relu(self.bn7(features)),)

    def train(self, mode: bool = True) -> ResNet38:
        """Stock, but with ``norm_eval`` batch normalisation stays in evaluation mode."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, BatchNorm):
                    module.eval()
        return self


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(
        self,
        width: int,
        inside: int,
        out: int,
        stride: int,
        dilation: tuple[int, int],
        norm: _Norm,
    ) -> None:
        super().__init__()
        self.bn_branch2a = norm(width)
        self.conv_branch2a = _conv(width, inside, stride=stride, dilation=dilation[0])
        self.bn_branch2b1 = norm(inside)
        self.conv_branch2b1 = _conv(inside, out, dilation=dilation[1])
        self.conv_branch1 = (
            None if width == out and stride == 1 else _conv(width, out, 1, stride=stride)
        )

    def forward(self, features: Tensor) -> Tensor:
        active = F.relu(self.bn_branch2a(features))
        shortcut = features if self.conv_branch1 is None else self.conv_branch1(active)
        inner = self.conv_branch2b1(F.relu(self.bn_branch2b1(self.conv_branch2a(active))))
        return shortcut + inner


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, with dropout before the last two, and a 1x1 shortcut."""

    def __init__(self, width: int, out: int, dilation: int, dropout: float, norm: _Norm) -> None:
        super().__init__()
        self.bn_branch2a = norm(width)
        self.conv_branch2a = _conv(width, out // 4, 1)
        self.bn_branch2b1 = norm(out // 4)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = _conv(out // 4, out // 2, dilation=dilation)
        self.bn_branch2b2 = norm(out // 2)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = _conv(out // 2, out, 1)
        self.conv_branch1 = _conv(width, out, 1)

    def forward(self, features: Tensor) -> Tensor:
        active = F.relu(self.bn_branch2a(features))
        inner = F.relu(self.bn_branch2b1(self.conv_branch2a(active)))
        inner = F.relu(self.bn_branch2b2(self.conv_branch2b1(self.dropout_2b1(inner))))
        return self.conv_branch1(active) + self.conv_branch2b2(self.dropout_2b2(inner))


def _conv(
    width: int, out: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(width, out, kernel, stride, padding, dilation, bias=False)


def _norm(config: dict[str, Any], channels: int) -> nn.Module:
    return build_norm_layer(config, channels)[1]
