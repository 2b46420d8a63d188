"""The last block run once, and gradients of any number of class scores pulled back through it.

Grad-CAM in the last block needs, for each class score, the gradient with respect to the output of
the block's first norm, averaged over the patches (eq. 10 of docs/methods/clip-es.md). Autograd
would give it with one backward pass per class. Here it is written out (eq. 11): the forward pass
keeps what the backward pass needs, all classes go back together, no gradient of a weight is formed,
and what the averaging makes redundant is never computed:

* scores depend on the patch mean alone, so the gradient at the block's output is, for every token,
  a combination of one vector a class and the token itself. The first product of the MLP's backward
  pass is therefore needed once an image and once a class, not once a token and class;
* only sums over patches of the gradients of queries, keys and values are needed. They follow from
  column sums of the softmax's gradient, one matrix product a head instead of four, and the
  in-projection is applied to one vector a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss.clip import attention
from wsss.clip.activation import activate_, slope
from wsss.clip.attention import Heads
from wsss.clip.block import Block
from wsss.clip.layers import Norm


@dataclass(frozen=True)
class LastBlock:
    """The last block's forward pass with what the pull-back needs; see `run_last_block`."""

    block: Block
    final_norm: Norm
    norm_after_pool: bool
    normed: Float[Tensor, "batch tokens width"]
    """Output of the block's first norm: the activation of Grad-CAM."""
    attention: Float[Tensor, "batch heads tokens tokens"]
    """Rows are queries; the class token comes first."""
    tokens: Float[Tensor, "batch tokens width"]
    """Output of the block."""
    pooled: Float[Tensor, "batch width"]
    """Mean over the patches after the final norm (or the norm of the mean, where the model pools
    first): what the visual projection is applied to."""
    _heads: Heads
    _mixed: Float[Tensor, "batch heads tokens head_width"]
    _middle: Float[Tensor, "batch patches width"]
    """Residual stream of the patches between attention and MLP."""
    _hidden: Float[Tensor, "batch patches hidden"]
    """Scaled input of the activation."""

    def pull_back(
        self, cotangents: Float[Tensor, "rows width"], owner: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows width"]:
        """Patch mean of the gradient of each score with respect to `normed`.

        Args:
            cotangents: gradient of each score with respect to `pooled` of its image.
            owner: index of each score's image in the batch, in ascending order.

        Returns:
            One vector a score: the channel weights of Grad-CAM.
        """
        if len(owner) == 0:
            return torch.zeros_like(cotangents)
        at_middle = self._through_mlp(self._through_pool(cotangents, owner), owner)
        return self._through_attention(at_middle, owner)

    def _through_pool(self, cotangents: Tensor, owner: Tensor) -> _Spanned:
        """Gradient at the block's output, patches only.

        With x the standardised input of the final norm and u' the centred product of cotangent and
        gain, the derivative of a layer norm is factor * (u' - x mean(u' x)).
        """
        patches = self.tokens[:, 1:]
        count = patches.shape[1]
        u = cotangents * self.final_norm.weight
        u = u - u.mean(-1, keepdim=True)
        if self.norm_after_pool:  # the same gradient for every patch: no patch is involved
            x, factor = self.final_norm.standardize(patches.mean(1))
            u = _through_standardize(u, x[owner], factor[owner]) / count
            one = torch.ones_like(patches[..., 0])
            return _Spanned(u, patches, one, torch.zeros_like(one[owner]))
        x, factor = self.final_norm.standardize(patches)
        away = factor.squeeze(-1) / count
        # (R, N, D) x (R, D, 1) -> (R, N)
        along = (_of(x, owner) @ u.unsqueeze(-1)).squeeze(-1) / u.shape[-1] * _of(away, owner)
        return _Spanned(u, x, away, along)

    def _through_mlp(
        self, at_output: _Spanned, owner: Tensor
    ) -> Float[Tensor, "rows patches width"]:
        """Gradient between attention and MLP: the residual path and the path through the MLP."""
        block = self.block
        vector, x = at_output.vector, at_output.x
        if block.gain2 is not None:
            vector, x = vector * block.gain2, x * block.gain2
        # down^T (away u - along x) = away (down^T u) - along (down^T x)
        slopes = slope(self._hidden.float(), block.activation)  # (B, N, 4 D)
        of_token = block.down.pull_back(x).mul_(slopes)
        slopes *= at_output.away.unsqueeze(-1)
        of_score = block.down.pull_back(vector).unsqueeze(1)  # (R, 1, 4 D)
        y, factor = block.norm2.standardize(self._middle)
        at_middle = at_output.dense(owner)  # (R, N, D)
        step = max(1, _chunk_numbers(slopes) // (slopes.shape[1] * slopes.shape[2]))
        for start in range(0, len(owner), step):
            rows = slice(start, start + step)
            mine = owner[rows]
            hidden = _of(slopes, mine) * of_score[rows]
            hidden.addcmul_(_of(of_token, mine), at_output.along[rows].unsqueeze(-1), value=-1)
            inner = block.up.pull_back(hidden).mul_(block.norm2.weight)  # (n, N, D)
            at_middle[rows] += _through_standardize(inner, _of(y, mine), _of(factor, mine))
        return at_middle

    def _through_attention(self, at_middle: Tensor, owner: Tensor) -> Float[Tensor, "rows width"]:
        """Patch means of the gradients of queries, keys and values, and from them of `normed`."""
        block = self.block
        if block.gain1 is not None:
            at_middle = at_middle * block.gain1
        rows, patches, _ = at_middle.shape
        # (R, N, D) -> (R, N, H, d) -> (R, H, N, d)
        at_mixed = block.out_proj.pull_back(at_middle).view(rows, patches, block.heads, -1)
        counts = torch.bincount(owner, minlength=len(self.tokens)).tolist()
        of_images = enumerate(at_mixed.transpose(1, 2).split(counts))
        sums = torch.cat([self._head_sums(mine, image) for image, mine in of_images if len(mine)])
        # (R, 3, H, d) -> (R, 3 D) x (3 D, D) -> (R, D)
        return block.in_proj.pull_back(sums.flatten(1)) / patches

    def _head_sums(self, at_mixed: Tensor, image: int) -> Float[Tensor, "rows 3 heads head_width"]:
        """Sums over the patches of the gradients of q, k and v, of one image.

        With P the attention, g_i the gradient at the mixed values o_i of query i and
        D_i = g_i . o_i, the softmax gives dS_ij = P_ij (g_i . v_j - D_i), and
        sum_i dq_i = scale sum_j (sum_i dS_ij) k_j, where
        sum_i dS_ij = v_j . (P^T g)_j - (P^T D)_j. The rows of dS sum to zero, so the sum of dk over
        the patches is minus what the class token's key gets. The class token as a query gets no
        gradient, because scores do not use its output.
        """
        heads = self._heads
        q, k, v = (part[image].float() for part in (heads.queries, heads.keys, heads.values))
        attn = self.attention[image][:, 1:]  # (H, N, L): patches as queries
        rows, count, patches, depth = at_mixed.shape
        inner = (at_mixed * self._mixed[image, :, 1:]).sum(-1)  # D: (R, H, N)
        # (R, H, N, d) -> (H, N, R, d) -> (H, N, R d); D is appended as R further columns
        columns = at_mixed.permute(1, 2, 0, 3).reshape(count, patches, rows * depth)
        columns = torch.cat([columns, inner.permute(1, 2, 0)], dim=-1)
        gathered = attn.transpose(1, 2) @ columns  # (H, L, N) x (H, N, R (d + 1))
        to_values = gathered[..., : rows * depth].unflatten(-1, (rows, depth))  # (H, L, R, d)
        column_sums = (to_values * v.unsqueeze(2)).sum(-1) - gathered[..., rows * depth :]
        of_queries = heads.scale * column_sums.transpose(1, 2) @ k  # (H, R, L) x (H, L, d)
        to_cls = attn[..., 0]  # (H, N)
        cls_gradient = to_cls * ((at_mixed @ v[:, :1].transpose(1, 2)).squeeze(-1) - inner)
        # (R, H, N) -> (H, R, N) x (H, N, d) -> (H, R, d)
        of_keys = -heads.scale * cls_gradient.transpose(0, 1) @ q[:, 1:]
        of_values = ((1 - to_cls).unsqueeze(-1) * at_mixed).sum(2)  # (R, H, d)
        return torch.stack([of_queries.transpose(0, 1), of_keys.transpose(0, 1), of_values], dim=1)


@dataclass(frozen=True)
class _Spanned:
    """Gradients ``away * vector - along * x``: one vector a score, two numbers a patch."""

    vector: Float[Tensor, "rows width"]
    x: Float[Tensor, "batch patches width"]
    away: Float[Tensor, "batch patches"]
    along: Float[Tensor, "rows patches"]

    def dense(self, owner: Tensor) -> Float[Tensor, "rows patches width"]:
        """All numbers of them."""
        spread = _of(self.away, owner).unsqueeze(-1) * self.vector.unsqueeze(1)
        return spread.addcmul_(_of(self.x, owner), self.along.unsqueeze(-1), value=-1)


def run_last_block(
    block: Block,
    final_norm: Norm,
    tokens: Float[Tensor, "batch tokens width"],
    *,
    norm_after_pool: bool = False,
) -> LastBlock:
    """Run a block and pool its patches.

    Args:
        block: the last block.
        final_norm: the norm before the visual projection.
        tokens: output of the block before, class token first; at least one patch.
        norm_after_pool: the model averages before the final norm.
    """
    normed = block.norm1(tokens)
    heads = block.split_heads(normed)
    weights, mixed = attention.explicit_with_weights(heads)
    middle = block.add_attention(tokens, mixed)
    hidden = block.hidden(middle)
    output = block.add_hidden(middle, activate_(hidden.clone(), block.activation))
    patches = output[:, 1:]
    pooled = final_norm(patches.mean(1)) if norm_after_pool else final_norm(patches).mean(1)
    return LastBlock(
        block,
        final_norm,
        norm_after_pool,
        normed,
        weights,
        output,
        pooled,
        heads,
        mixed,
        middle[:, 1:],
        hidden[:, 1:],
    )


def _chunk_numbers(like: Tensor) -> int:
    """How many hidden gradients are held at once.

    Few on a CPU, where fresh memory is slow: the buffer of one class is then reused for the next.
    """
    return 1 << (28 if like.is_cuda else 22)


def _through_standardize(gradient: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """Gradient through a standardisation whose output is ``x`` (derivative of a layer norm)."""
    along = (gradient * x).mean(-1, keepdim=True)
    centred = gradient - gradient.mean(-1, keepdim=True)
    return centred.addcmul_(x, along, value=-1).mul_(factor)


def _of(per_image: Tensor, owner: Tensor) -> Tensor:
    """``per_image`` for every row; a batch of one image is broadcast instead of copied."""
    return per_image if len(per_image) == 1 else per_image[owner]
