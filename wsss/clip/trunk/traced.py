"""The last block of towers other than CLIP's own, with gradients by autograd.

`wsss.clip.last_block` writes the gradient out for CLIP's block, whose scores depend on sums over
patches. Turned queries, inner norms and attention pooling break those sums, so here autograd goes
back once per class. Parameters have no gradients, and the graph holds this one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss.clip.trunk.parts import ResidualBlock, Rotation
from wsss.compute.packed_rows import padded_slots

Pool = Callable[[Float[Tensor, "batch patches width"]], Float[Tensor, "batch width"]]


@dataclass(frozen=True)
class TracedLastBlock:
    """The same fields and `vjp` as `wsss.clip.last_block.LastBlock`."""

    normed: Float[Tensor, "batch tokens width"]
    """Output of the block's first norm: the activation of Grad-CAM."""
    attention: Float[Tensor, "batch heads tokens tokens"]
    """Rows are queries; the class token comes first, if there is one."""
    tokens: Float[Tensor, "batch tokens width"]
    """Output of the block."""
    pooled: Float[Tensor, "batch width"]
    """What the scores depend on: the input of the visual projection."""
    _patches: int
    _leaf: Tensor
    _root: Tensor
    """The graph leads from here back to the leaf."""

    def vjp(
        self, grad_outputs: Float[Tensor, "rows width"], image_index: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows width"]:
        """See `wsss.clip.last_block.LastBlock.vjp`."""
        if len(image_index) == 0:
            return torch.zeros_like(grad_outputs)
        batch, width = self.pooled.shape
        slots = padded_slots(image_index, batch, self.tokens.device)
        with _with_gradients():
            # Packed rows (R, D) -> (K, B, D), K the most classes of an image: the k-th class of
            # every image goes back in one pass, since images do not depend on each other.
            padded = grad_outputs.new_zeros(slots.most, batch, width)
            padded[slots.row, slots.image] = grad_outputs.clone()
            passes = [
                torch.autograd.grad(self._root, self._leaf, rows, retain_graph=True)[0]
                for rows in padded
            ]
            means = torch.stack([one[:, -self._patches :].mean(1) for one in passes])
        return means[slots.row, slots.image]


def run_traced_last_block(
    block: ResidualBlock,
    pool: Pool,
    tokens: Float[Tensor, "batch tokens width"],
    patches: int,
    rotation: Rotation | None = None,
) -> TracedLastBlock:
    """Run a block and pool its patches, ready for gradients of scores.

    Args:
        pool: makes the input of the visual projection of the patches' tokens.
        tokens: output of the block before; patches last.
        patches: their number.
        rotation: of the grid, where the block turns queries and keys.
    """
    with _with_gradients():
        stream = tokens.clone()  # tensors of inference mode cannot take part in a graph
        rotation = None if rotation is None else rotation.clone()
        leaf = block.norm1(stream).detach().requires_grad_()
        heads = block.split_heads(leaf, rotation)
        queries, keys, values = (part.float() for part in (heads.queries, heads.keys, heads.values))
        # (B, H, L, d) x (B, H, d, L) -> (B, H, L, L)
        weights = torch.softmax(heads.scale * queries @ keys.transpose(-2, -1), dim=-1)
        output = block.add_mlp(block.add_attention(stream, weights @ values))
        root = pool(output[:, -patches:])
    return TracedLastBlock(
        normed=leaf.detach(),
        attention=weights.detach(),
        tokens=output.detach(),
        pooled=root.detach(),
        _patches=patches,
        _leaf=leaf,
        _root=root,
    )


@contextmanager
def _with_gradients() -> Iterator[None]:
    """Autograd inside of `torch.no_grad` and `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
