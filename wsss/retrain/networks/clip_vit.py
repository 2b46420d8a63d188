"""The image tower of a CLIP as a backbone, and a small decoder with a stem for edges.

The tower sees patches alone, whose grid is coarse. So the decoder also looks at the image: a stem
of two 3x3 convolutions at half resolution finds the edges at which labels change.

| part | input | output channels |
|---|---|---|
| fuse | the outputs of five blocks, spread over the depth; 1x1 | w, at most 256 |
| stem | the image; 3x3 with stride 2, 3x3 | w / 4 |
| join | both at half resolution; 3x3 | w / 2 |
| classifier | 1x1 | labels |

Without the stem the decoder sees every patch alone: join is 1x1, on the grid of the patches. Its
labels are coarse, and a CRF finds the edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.clip.model_config import build_image_tower
from wsss.clip.towers import ImageBlocks
from wsss.retrain.mm import MODELS, BaseDecodeHead, BaseModule, ConvModule

_TAPS = 5  # blocks whose outputs are fused
_WIDEST = 256


@MODELS.register_module()
class ClipViT(BaseModule):  # type: ignore[misc]
    """The image and the outputs of blocks of a CLIP's image tower.

    Args:
        tower: what `wsss.clip.model_config.build_image_tower` takes.
        crop: side of the training crop, pixels; the positional table is resized to its patches.
        frozen: the tower keeps its weights.
        init_cfg: initialisation, as mmsegmentation's backbones take it.

    Attributes:
        patch_size: side of a patch, pixels.
        heads: of a block.
    """

    def __init__(
        self, tower: Mapping[str, Any], crop: int, frozen: bool = False, init_cfg: Any = None
    ) -> None:
        super().__init__(init_cfg)
        vision = tower["vision_cfg"]
        self.patch_size = int(vision["patch_size"])
        self._taps = [block - 1 for block in tapped_blocks(int(vision["layers"]))]
        self._grid = (crop // self.patch_size,) * 2
        self.tower = ImageBlocks(build_image_tower(tower), self._grid)
        first: Any = next(self.tower.blocks.children())
        self.heads = int(first.attn.num_heads)
        self._trains = not frozen
        if frozen:
            self.tower.requires_grad_(False)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
        """The normalised image, then the patches of each of the tapped blocks on their grid."""
        rows, columns = (side // self.patch_size for side in images.shape[2:])
        with torch.set_grad_enabled(self._trains and torch.is_grad_enabled()):
            outputs, _ = self.tower(images, self._taps)
        # (B, 1 + h w, D) -> (B, D, h, w)
        maps = (tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, columns)) for tokens in outputs)
        return images, *maps

    def start_from(self, visual: nn.Module) -> None:
        """Take the weights of a CLIP's image tower.

        Args:
            visual: open_clip's, of the same architecture.
        """
        self.tower.load_state_dict(ImageBlocks(visual, self._grid).state_dict())


def tapped_blocks(layers: int) -> list[int]:
    """Blocks, counted from 1, whose outputs are fused: of 12 these are 4, 6, 8, 10 and 12."""
    spread = (round(layers * k / (_TAPS + 1)) for k in range(2, _TAPS + 2))
    return sorted({max(1, block) for block in spread})


def decoder_channels(layers: int, width: int) -> dict[str, Any]:
    """The channels of a `ClipDecoder` over a tower, as its arguments."""
    taps = len(tapped_blocks(layers))
    return {
        "in_channels": [3] + [width] * taps,
        "in_index": list(range(taps + 1)),
        "channels": min(_WIDEST, width) // 2,
    }


@MODELS.register_module()
class ClipDecoder(BaseDecodeHead):  # type: ignore[misc]
    """See the table of the module.

    Args:
        has_stem: whether it looks at the image, too.
        rest: what mmsegmentation's heads take. ``channels``: of the classifier's input;
            ``dropout_ratio``: of single values of the fused tokens.
    """

    def __init__(self, has_stem: bool = True, **rest: Any) -> None:
        super().__init__(input_transform="multiple_select", **rest)
        image, *widths = self.in_channels
        stem = self.channels // 2 if has_stem else 0

        def convolution(width: int, out: int, kernel: int, stride: int = 1) -> nn.Module:
            gelu = {"type": "GELU"}
            padding, norm = kernel // 2, self.norm_cfg
            shared = {"stride": stride, "padding": padding, "norm_cfg": norm, "act_cfg": gelu}
            return ConvModule(width, out, kernel, **shared)

        self.fuse = convolution(sum(widths), 2 * self.channels, 1)
        self.stem = (
            nn.Sequential(convolution(image, stem, 3, stride=2), convolution(stem, stem, 3))
            if has_stem
            else None
        )
        self.join = convolution(2 * self.channels + stem, self.channels, 3 if has_stem else 1)
        self.dropout = nn.Dropout(self.dropout_ratio)

    def forward(
        self, inputs: Sequence[Float[Tensor, "batch _ _ _"]]
    ) -> Float[Tensor, "batch labels height width"]:
        """Logits at half the image's resolution; without the stem on the grid of the patches."""
        image, *tokens = self._transform_inputs(inputs)
        fused = self.dropout(self.fuse(torch.cat(tokens, dim=1)))
        if self.stem is None:
            return self.conv_seg(self.join(fused))
        edges = self.stem(image)
        fused = F.interpolate(fused, edges.shape[2:], mode="bilinear", align_corners=False)
        return self.conv_seg(self.join(torch.cat([fused, edges], dim=1)))
