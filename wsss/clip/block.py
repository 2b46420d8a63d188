"""The weights of one transformer block, taken from an open_clip module, and their arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from wsss.clip.activation import Activation, activate_, activation_of, input_scale
from wsss.clip.attention import Heads
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.layers import Linear, Load, Norm
from wsss.clip.trunk.parts import Rotation

ABSENT = (nn.Identity, type(None))
"""What stands for a part that a module does not have."""


@dataclass(frozen=True)
class Block:
    """A pre-norm transformer block: ``y = x + attn(norm1(x))``, then ``y + mlp(norm2(y))``."""

    norm1: Norm
    in_proj: Linear
    out_proj: Linear
    norm2: Norm
    fc1: Linear
    fc2: Linear
    gain1: Float[Tensor, " width"] | None
    """Layer scale after the attention, None without."""
    gain2: Float[Tensor, " width"] | None
    activation: Activation
    heads: int

    def split_heads(
        self, normed: Float[Tensor, "batch tokens width"], rotation: Rotation | None = None
    ) -> Heads:
        """Queries, keys and values of the output of ``norm1``.

        Raises:
            ValueError: they are to be turned.
        """
        if rotation is not None:
            raise ValueError("queries and keys of this block are not turned")
        batch, tokens, width = normed.shape
        # (B, L, 3 D) -> (B, L, 3, H, d) -> (3, B, H, L, d)
        packed = self.in_proj(normed).view(batch, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = packed.permute(2, 0, 3, 1, 4).unbind(0)
        return Heads(queries, keys, values)

    def add_attention(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        attended: Float[Tensor, "batch heads tokens head_width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Project the attended values of the heads and add them to the residual stream."""
        # (B, H, L, d) -> (B, L, H, d) -> (B, L, D)
        return _add(tokens, self.out_proj(attended.transpose(1, 2).flatten(2)), self.gain1)

    def value_update(self, heads: Heads) -> Float[Tensor, "batch tokens width"]:
        """What each token adds to the stream if it attends to itself alone; no projection bias."""
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
        """Scaled inputs of the activation, see `wsss.clip.activation`."""
        scale = input_scale(self.activation)
        return self.fc1(self.norm2(tokens), gain=scale, bias_gain=scale)

    def add_hidden(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        activated: Float[Tensor, "batch tokens hidden"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Project the output of `activate_` and add it to the residual stream."""
        update = self.fc2(activated, gain=1 / input_scale(self.activation))
        return _add(tokens, update, self.gain2)

    @staticmethod
    def of(module: nn.Module, index: int, load: Load) -> Block:
        """Take the weights of an open_clip residual attention block.

        Args:
            index: of the block, for error messages.
            load: casts a parameter of a linear map to the type that it is used in.

        Raises:
            UnsupportedEncoderError: the block is of another kind (normalised queries, cosine
                attention, extra norms …).
        """
        where = f"block {index}"
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
        unsupported = [name for name, part in extras.items() if not isinstance(part, ABSENT)]
        names = ("logit_scale", "head_scale", "bias_k")
        unsupported += [name for name in names if getattr(attn, name, None) is not None]
        if unsupported or attn.in_proj_weight is None:
            raise UnsupportedEncoderError(
                f"{where} has {', '.join(unsupported) or 'separate projections'}; only plain "
                "softmax attention is supported"
            )
        return Block(
            norm1=Norm.of(module.get_submodule("ln_1"), f"{where}.ln_1"),
            in_proj=Linear.of(attn.in_proj_weight, attn.in_proj_bias, load),
            out_proj=Linear.of(attn.out_proj.weight, attn.out_proj.bias, load),
            norm2=Norm.of(module.get_submodule("ln_2"), f"{where}.ln_2"),
            fc1=Linear.of(mlp.c_fc.weight, mlp.c_fc.bias, load),
            fc2=Linear.of(mlp.c_proj.weight, mlp.c_proj.bias, load),
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
    if isinstance(scale, ABSENT):
        return None
    gamma = scale.gamma
    assert isinstance(gamma, Tensor)
    return gamma.detach().float()
