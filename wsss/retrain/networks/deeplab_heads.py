"""The heads of DeepLabV1 and DeepLabV2, which mmsegmentation lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from wsss.retrain.mm import MODELS, BaseDecodeHead, ConvModule

_KAIMING = [
    {"type": "Kaiming", "layer": "Conv2d"},  # normal, fan out
    {"type": "Constant", "val": 1, "layer": "_BatchNorm"},
]


@MODELS.register_module()
class DeepLabV1Head(BaseDecodeHead):  # type: ignore[misc]
    """The large field of view of DeepLabV1, as the ResNet38 rows of the tables were trained.

    A 3x3 convolution with dilation, a 1x1 convolution, both with normalisation and ReLU, dropout
    (of single values), and the classifier.

    Args:
        dilation: of the 3x3 convolution.
        rest: what mmsegmentation's heads take; ``dropout_ratio`` is that of the dropout.
    """

    def __init__(self, dilation: int = 12, **rest: Any) -> None:
        super().__init__(init_cfg=_KAIMING, **rest)
        shared = {"norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg}
        self.view = ConvModule(
            self.in_channels, self.channels, 3, padding=dilation, dilation=dilation, **shared
        )
        self.mix = ConvModule(self.channels, self.channels, 1, **shared)
        self.dropout = nn.Dropout(self.dropout_ratio)

    def forward(
        self, inputs: Sequence[Float[Tensor, "batch _ _ _"]]
    ) -> Float[Tensor, "batch labels height width"]:
        """Logits at the resolution of the features."""
        return self.cls_seg(self.mix(self.view(self._transform_inputs(inputs))))


@MODELS.register_module()
class DeepLabV2Head(BaseDecodeHead):  # type: ignore[misc]
    """Atrous spatial pyramid of DeepLabV2 (Chen et al., 2018): the sum of dilated 3x3 classifiers.

    Args:
        dilations: one classifier each.
    """

    def __init__(self, dilations: Sequence[int] = (6, 12, 18, 24), **rest: Any) -> None:
        init = {"type": "Normal", "std": 0.01, "layer": "Conv2d"}
        super().__init__(channels=rest["in_channels"], dropout_ratio=0, init_cfg=init, **rest)
        del self.conv_seg
        self.classifiers = nn.ModuleList(
            nn.Conv2d(self.in_channels, self.out_channels, 3, padding=rate, dilation=rate)
            for rate in dilations
        )

    def forward(
        self, inputs: Sequence[Float[Tensor, "batch _ _ _"]]
    ) -> Float[Tensor, "batch labels height width"]:
        """Logits at the resolution of the features."""
        features = self._transform_inputs(inputs)
        first, *others = (classifier(features) for classifier in self.classifiers)
        return sum(others, first)
