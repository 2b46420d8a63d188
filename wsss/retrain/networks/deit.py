"""The vision transformer of mmsegmentation with two slips put right.

Stock lacks the bias of the patch embedding, which DeiT has (``patch_bias`` is off by default, and
loading is not strict, so that no error says so). And it resizes the positional table only if the
*number* of patches differs from that of training: 45 x 20 patches would get the rows of a 30 x 30
grid.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from wsss.retrain.mm import MODELS, VisionTransformer


@MODELS.register_module()
class DeiT(VisionTransformer):  # type: ignore[misc]
    """See the module.

    Args:
        rest: what mmsegmentation's vision transformer takes.
    """

    def __init__(self, **rest: Any) -> None:
        super().__init__(patch_bias=True, **rest)

    @property
    def heads(self) -> int:
        """Of a block."""
        return int(self.layers[0].attn.num_heads)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the positional table."""
        return self.img_size[0] // self.patch_size, self.img_size[1] // self.patch_size

    def _pos_embeding(
        self,
        patched_img: Float[Tensor, "batch tokens channels"],
        hw_shape: tuple[int, int],
        pos_embed: Float[Tensor, "1 rows channels"],
    ) -> Float[Tensor, "batch tokens channels"]:
        if tuple(hw_shape) != self.grid:
            pos_embed = self.resize_pos_embed(pos_embed, hw_shape, self.grid, self.interpolate_mode)
        return self.drop_after_pos(patched_img + pos_embed)
