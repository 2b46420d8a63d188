"""The last block, and vector-Jacobian products (VJP) of any number of class scores through it.

Grad-CAM in the last block needs, for each class score, the gradient with respect to the output of
the block's first norm, averaged over the patches (eq. 10 of docs/methods/clip-es.md). Autograd
would give it with one backward pass per class. Here it is written out (eq. 11): the forward pass
keeps what the backward pass needs, all classes go back together, no gradient of a weight is formed,
and nothing that the averaging makes redundant is computed:

* scores depend on the patch mean alone, so the gradient at the block's output is, for every token,
  a combination of one vector per class and the token itself. The first product of the MLP's
  backward pass is therefore needed once per image and once per class, not per token and class;
* only sums over patches of the gradients of queries, keys and values are needed. They follow from
  column sums of the softmax's gradient: one matrix product per head instead of four, and the
  in-projection is applied to one vector per class.
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
from wsss.compute.packed_rows import Slots, padded_slots


@dataclass(frozen=True)
class LastBlock:
    """The last block's forward pass with what `vjp` needs; see `run_last_block`."""

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
    first): the input of the visual projection."""
    _heads: Heads
    _attended: Float[Tensor, "batch heads tokens head_width"]
    _post_attention: Float[Tensor, "batch patches width"]
    """Residual stream of the patches between attention and MLP."""
    _hidden: Float[Tensor, "batch patches hidden"]
    """Scaled input of the activation."""

    def vjp(
        self, grad_outputs: Float[Tensor, "rows width"], image_index: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows width"]:
        """Patch mean of the gradient of each score with respect to `normed`.

        Args:
            grad_outputs: gradient of each score with respect to `pooled` of its image.
            image_index: index of each score's image in the batch, in ascending order; best on the
                CPU.

        Returns:
            One vector per score: the channel weights of Grad-CAM.
        """
        if len(image_index) == 0:
            return torch.zeros_like(grad_outputs)
        slots = padded_slots(image_index, len(self.tokens), self.tokens.device)
        gradient = self._through_pool(grad_outputs, slots.image)
        return self._through_attention(self._through_mlp(gradient, slots.image), slots)

    def _through_pool(self, grad_outputs: Tensor, image_index: Tensor) -> _LowRankGradient:
        """Gradient at the block's output, patches only.

        With x the standardised input of the final norm and u' the centred product of output
        gradient and gain, the derivative of a layer norm is factor * (u' - x mean(u' x)).
        """
        patches = self.tokens[:, 1:]
        count = patches.shape[1]
        u = grad_outputs * self.final_norm.weight
        u = u - u.mean(-1, keepdim=True)
        if self.norm_after_pool:  # the same gradient for every patch: no patch is involved
            x, factor = self.final_norm.standardize(patches.mean(1))
            u = _through_standardize(u, x[image_index], factor[image_index]) / count
            ones = torch.ones_like(patches[..., 0])
            return _LowRankGradient(u, patches, ones, torch.zeros_like(ones[image_index]))
        x, factor = self.final_norm.standardize(patches)
        vector_scale = factor.squeeze(-1) / count
        # (R, N, D) x (R, D, 1) -> (R, N)
        products = (_per_row(x, image_index) @ u.unsqueeze(-1)).squeeze(-1)
        x_scale = products / u.shape[-1] * _per_row(vector_scale, image_index)
        return _LowRankGradient(u, x, vector_scale, x_scale)

    def _through_mlp(
        self, at_output: _LowRankGradient, image_index: Tensor
    ) -> Float[Tensor, "rows patches width"]:
        """Gradient between attention and MLP: the residual path and the path through the MLP."""
        block = self.block
        vector, x = at_output.vector, at_output.x
        if block.gain2 is not None:
            vector, x = vector * block.gain2, x * block.gain2
        # With W of fc2: W^T (a u - b x) = a (W^T u) - b (W^T x), a and b the scales of a patch
        slopes = slope(self._hidden.float(), block.activation)  # (B, N, 4 D)
        token_part = block.fc2.vjp(x).mul_(slopes)
        slopes *= at_output.vector_scale.unsqueeze(-1)
        score_part = block.fc2.vjp(vector).unsqueeze(1)  # (R, 1, 4 D)
        y, factor = block.norm2.standardize(self._post_attention)
        gradient = at_output.dense(image_index)  # (R, N, D)
        step = max(1, _chunk_numbers(slopes) // (slopes.shape[1] * slopes.shape[2]))
        buffer = slopes.new_empty(min(step, len(image_index)), *slopes.shape[1:])  # (n, N, 4 D)
        for start in range(0, len(image_index), step):
            rows = slice(start, start + step)
            index = image_index[rows]
            hidden = torch.mul(_per_row(slopes, index), score_part[rows], out=buffer[: len(index)])
            hidden.addcmul_(
                _per_row(token_part, index), at_output.x_scale[rows].unsqueeze(-1), value=-1
            )
            inner = block.fc1.vjp(hidden).mul_(block.norm2.weight)  # (n, N, D)
            gradient[rows].add_(
                _through_standardize(inner, _per_row(y, index), _per_row(factor, index))
            )
        return gradient

    def _through_attention(self, gradient: Tensor, slots: Slots) -> Float[Tensor, "rows width"]:
        """Patch means of the gradients of queries, keys and values, and from them of `normed`."""
        block = self.block
        if block.gain1 is not None:
            gradient = gradient * block.gain1
        rows, patches, _ = gradient.shape
        # (R, N, D) -> (R, N, H, d) -> (R, H, N, d)
        per_head = block.out_proj.vjp(gradient).view(rows, patches, block.heads, -1)
        per_head = per_head.transpose(1, 2)
        if per_head.is_cuda:  # rows of zeros cost less than products for each image
            # (R, H, N, d) -> (B, K, H, N, d), K the most rows of an image
            padded = per_head.new_zeros(len(self.tokens), slots.most, *per_head.shape[1:])
            padded[slots.image, slots.row] = per_head
            sums = self._head_sums(padded, slice(None))[slots.image, slots.row]
        else:
            counts = torch.bincount(slots.image, minlength=len(self.tokens)).tolist()
            parts = (part.unsqueeze(0) for part in per_head.split(counts))
            images = ((part, slice(i, i + 1)) for i, part in enumerate(parts) if part.shape[1])
            sums = torch.cat([self._head_sums(*image)[0] for image in images])
        # (R, 3, H, d) -> (R, 3 D) x (3 D, D) -> (R, D)
        return block.in_proj.vjp(sums.flatten(1)) / patches

    def _head_sums(
        self, gradient: Float[Tensor, "images rows heads patches head_width"], images: slice
    ) -> Float[Tensor, "images rows 3 heads head_width"]:
        """Sums over the patches of some images of the gradients of q, k and v.

        With P the attention, g_i the gradient at the attended values o_i of query i and
        D_i = g_i . o_i, the softmax gives dS_ij = P_ij (g_i . v_j - D_i), and
        sum_i dq_i = scale sum_j (sum_i dS_ij) k_j, where
        sum_i dS_ij = v_j . (P^T g)_j - (P^T D)_j. The rows of dS sum to zero, so the sum of dk over
        the patches is minus the gradient of the class token's key. The class token as a query has
        no gradient, because scores do not use its output.
        """
        heads = self._heads
        # (b, H, L, d)
        q, k, v = (part[images].float() for part in (heads.queries, heads.keys, heads.values))
        attn = self.attention[images][:, :, 1:]  # (b, H, N, L): patches as queries
        count, rows, head_count, patches, depth = gradient.shape
        inner = (gradient * self._attended[images][:, None, :, 1:]).sum(-1)  # D: (b, K, H, N)
        # (b, K, H, N, d) -> (b, H, N, K, d) -> (b, H, N, K d); D is appended as K further columns
        columns = gradient.permute(0, 2, 3, 1, 4).reshape(count, head_count, patches, rows * depth)
        columns = torch.cat([columns, inner.permute(0, 2, 3, 1)], dim=-1)
        gathered = attn.transpose(-2, -1) @ columns  # (b, H, L, N) x (b, H, N, K (d + 1))
        to_values = gathered[..., : rows * depth].unflatten(-1, (rows, depth))  # (b, H, L, K, d)
        column_sums = (to_values * v.unsqueeze(-2)).sum(-1) - gathered[..., rows * depth :]
        # (b, H, K, L) x (b, H, L, d)
        query_sums = heads.scale * column_sums.transpose(-2, -1) @ k
        to_cls = attn[..., 0].unsqueeze(1)  # (b, 1, H, N)
        class_values = v[:, None, :, :1].transpose(-2, -1)  # (b, 1, H, d, 1)
        cls_gradient = to_cls * ((gradient @ class_values).squeeze(-1) - inner)
        # (b, K, H, N) -> (b, H, K, N) x (b, H, N, d) -> (b, H, K, d)
        key_sums = -heads.scale * cls_gradient.transpose(1, 2) @ q[:, :, 1:]
        value_sums = ((1 - to_cls).unsqueeze(-1) * gradient).sum(-2)  # (b, K, H, d)
        return torch.stack(
            [query_sums.transpose(1, 2), key_sums.transpose(1, 2), value_sums], dim=2
        )


@dataclass(frozen=True)
class _LowRankGradient:
    """Gradients ``vector_scale * vector - x_scale * x``: a vector per score, scales per patch."""

    vector: Float[Tensor, "rows width"]
    x: Float[Tensor, "batch patches width"]
    vector_scale: Float[Tensor, "batch patches"]
    x_scale: Float[Tensor, "rows patches"]

    def dense(self, image_index: Tensor) -> Float[Tensor, "rows patches width"]:
        """The gradients, built."""
        dense = _per_row(self.vector_scale, image_index).unsqueeze(-1) * self.vector.unsqueeze(1)
        return dense.addcmul_(_per_row(self.x, image_index), self.x_scale.unsqueeze(-1), value=-1)


def run_last_block(
    block: Block,
    final_norm: Norm,
    tokens: Float[Tensor, "batch tokens width"],
    *,
    norm_after_pool: bool = False,
) -> LastBlock:
    """Run a block and pool its patches.

    Args:
        final_norm: the norm before the visual projection.
        tokens: output of the block before, class token first; at least one patch.
        norm_after_pool: the model averages before the final norm.
    """
    normed = block.norm1(tokens)
    heads = block.split_heads(normed)
    weights, attended = attention.explicit_with_weights(heads)
    post_attention = block.add_attention(tokens, attended)
    hidden = block.hidden(post_attention)
    output = block.add_hidden(post_attention, activate_(hidden.clone(), block.activation))
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
        attended,
        post_attention[:, 1:],
        hidden[:, 1:],
    )


def _chunk_numbers(like: Tensor) -> int:
    """Number of hidden gradients computed at once.

    Few on a CPU, where fresh memory is slow: the next class reuses the buffer of one class.
    """
    return 1 << (28 if like.is_cuda else 22)


def _through_standardize(gradient: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """Gradient through a standardisation whose output is ``x`` (derivative of a layer norm)."""
    x_scale = (gradient * x).mean(-1, keepdim=True)
    centred = gradient - gradient.mean(-1, keepdim=True)
    return centred.addcmul_(x, x_scale, value=-1).mul_(factor)


def _per_row(per_image: Tensor, image_index: Tensor) -> Tensor:
    """``per_image`` for every row; a batch of one image is broadcast instead of copied."""
    return per_image if len(per_image) == 1 else per_image[image_index]
