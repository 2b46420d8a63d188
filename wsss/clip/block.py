"""The weights of one transformer block, taken from an open_clip module, and their arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip.activation import Activation, activate_, activation_of, input_scale
from wsss.clip.attention import Heads
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.layers import Linear, Load, Norm


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

    def values_through(self, heads: Heads) -> Float[Tensor, "batch tokens width"]:
        """What every token's own value adds to a stream, without the bias of the projection."""
        # (B, H, L, d) -> (B, L, H, d) -> (B, L, D)
        update = self.out_proj(heads.values.transpose(1, 2).flatten(2), bias_gain=0.0).float()
        return update if self.gain1 is None else update.mul_(self.gain1)

    def add_mlp(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Add the feed-forward part to the residual stream."""
        return self.add_hidden(tokens, activate_(self.hidden(tokens), self.activation))

    def hidden(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens hidden"]:
        """Inputs of the activation, scaled as `wsss.clip.activation` wants them."""
        scale = input_scale(self.activation)
        return self.up(self.norm2(tokens), gain=scale, bias_gain=scale)

    def add_hidden(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        activated: Float[Tensor, "batch tokens hidden"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Project what `activate_` gave and add it to the residual stream."""
        update = self.down(activated, gain=1 / input_scale(self.activation))
        return _add(tokens, update, self.gain2)

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
