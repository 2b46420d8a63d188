"""Read the parts of an image tower: open_clip's ViT, and timm's EVA and SigLIP inside open_clip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsss.clip.activation import activation_of
from wsss.clip.block import ABSENT, Block
from wsss.clip.errors import UnsupportedEncoderError
from wsss.clip.layers import Linear, Load, Norm
from wsss.clip.trunk.eva import EvaBlock
from wsss.clip.trunk.parts import Grid, ResidualBlock, Rotation, Trunk
from wsss.clip.trunk.pooling import AttentionPool

FAMILIES = (
    "supported are ViTs of open_clip with a class token (OpenAI, LAION, MetaCLIP, DFN …), EVA-CLIP "
    "(EVA01-g, EVA02-B, EVA02-L) and SigLIP, e.g. ViT-B-16-quickgelu, EVA02-L-14, ViT-B-16-SigLIP"
)


def read_trunk(visual: nn.Module, load: Load) -> Trunk:
    """Take the weights of an image tower.

    Args:
        visual: open_clip's `VisionTransformer` or `TimmModel`.
        load: casts a parameter of a linear map to the type that it is used in.

    Raises:
        UnsupportedEncoderError: the tower is of another family, or has parts that are not read
            here; the message lists the families.
    """
    try:
        if type(visual).__name__ == "TimmModel":
            return _of_timm(visual, load)
        return _of_open_clip(visual, load)
    except UnsupportedEncoderError as error:
        raise UnsupportedEncoderError(f"{error}; {FAMILIES}") from None


def _of_open_clip(visual: Any, load: Load) -> Trunk:
    kind = type(visual).__name__
    if kind != "VisionTransformer" or not hasattr(visual, "class_embedding"):
        raise UnsupportedEncoderError(f"the image tower is {kind}")
    if getattr(visual, "attn_pool", None) is not None or visual.pool_type not in ("tok", "avg"):
        raise UnsupportedEncoderError("the image tower pools by attention, as CoCa's")
    projection = visual.proj
    return Trunk(
        family="ViT",
        patch=_pair(visual.patch_size),
        grid=_pair(visual.grid_size),
        patch_weight=load(visual.conv1.weight),
        patch_bias=None,
        class_token=visual.class_embedding.detach().float(),
        positions=visual.positional_embedding.detach().float(),
        first_norm=_optional_norm(visual.ln_pre, "ln_pre"),
        blocks=[
            Block.of(module, index, load)
            for index, module in enumerate(visual.transformer.resblocks)
        ],
        final_norm=Norm.of(visual.ln_post, "ln_post"),
        norm_after_pool=bool(getattr(visual, "final_ln_after_pool", False)),
        reads_class_token=visual.pool_type == "tok",
        projection=None if projection is None else load(projection).float(),
    )


def _of_timm(visual: Any, load: Load) -> Trunk:
    """Parts of timm's `Eva` with a class token, or of its `VisionTransformer` as SigLIP uses it."""
    trunk, kind = visual.trunk, type(visual.trunk).__name__
    pool = getattr(trunk, "global_pool", None)
    is_eva = kind == "Eva" and pool == "token"
    is_siglip = kind == "VisionTransformer" and pool == "map" and trunk.cls_token is None
    registers = getattr(trunk, "reg_token", None) is not None
    if not (is_eva or is_siglip) or registers or len(visual.head):
        raise UnsupportedEncoderError(f"the image tower is timm's {kind} with the pooling {pool!r}")
    conv = getattr(trunk.patch_embed, "proj", None)
    if not isinstance(conv, nn.Conv2d) or trunk.pos_embed is None:
        raise UnsupportedEncoderError(
            f"the image tower is timm's {kind} with {type(trunk.patch_embed).__name__}, or without "
            "a positional table"
        )
    fc_norm = getattr(trunk, "fc_norm", None)
    if not isinstance(fc_norm, (nn.Identity, type(None))):
        raise UnsupportedEncoderError(f"the image tower is timm's {kind} with a norm after pooling")
    weight = bias = None
    if isinstance(trunk.head, nn.Linear):
        weight, bias = load(trunk.head.weight).float().T, trunk.head.bias
    rope = getattr(trunk, "rope", None)
    return Trunk(
        family="EVA" if is_eva else "SigLIP",
        patch=_pair(trunk.patch_embed.patch_size),
        grid=_pair(trunk.patch_embed.grid_size),
        patch_weight=load(conv.weight),
        patch_bias=None if conv.bias is None else load(conv.bias),
        class_token=trunk.cls_token.detach().float().flatten() if is_eva else None,
        positions=trunk.pos_embed.detach().float()[0],
        first_norm=_optional_norm(trunk.norm_pre, "norm_pre"),
        blocks=[_timm_block(module, index, load) for index, module in enumerate(trunk.blocks)],
        final_norm=Norm.of(trunk.norm, "norm"),
        norm_after_pool=False,
        reads_class_token=is_eva,
        projection=weight,
        projection_bias=None if bias is None else load(bias).float(),
        pool=AttentionPool.of(trunk.attn_pool, load) if is_siglip else None,
        rotate=None if rope is None else _Rotary(rope),
    )


class _Rotary:
    """Angles of EVA02: rows and columns of a grid, in units of the grid it was trained on."""

    def __init__(self, rope: Any) -> None:
        if type(rope).__name__ != "RotaryEmbeddingCat" or rope.in_pixels or rope.rotate_half:
            raise UnsupportedEncoderError(f"the image tower turns by {type(rope).__name__}")
        from timm.layers.pos_embed_sincos import build_rotary_pos_embed

        self._build = build_rotary_pos_embed
        self._rope = rope

    def __call__(self, grid: Grid) -> Rotation:
        rope = self._rope
        sine_and_cosine = self._build(
            list(grid),
            bands=rope.bands,
            in_pixels=False,
            ref_feat_shape=rope.ref_feat_shape,
            grid_offset=rope.grid_offset,
            grid_indexing=rope.grid_indexing,
            grid_type=rope.grid_type,
        )
        return torch.stack(sine_and_cosine).float()


def _timm_block(module: Any, index: int, load: Load) -> ResidualBlock:
    """The weights of timm's `Block` or `EvaBlock`.

    Raises:
        UnsupportedEncoderError: it has norms after its parts, gates, or normalised queries.
    """
    where, kind = f"block {index}", type(module).__name__
    attn, mlp = module.attn, module.mlp
    extras = {
        "norms of queries": getattr(attn, "q_norm", None),
        "norms of keys": getattr(attn, "k_norm", None),
        "a gate of its attention": getattr(attn, "gate", None),
    }
    unsupported = [name for name, part in extras.items() if not isinstance(part, ABSENT)]
    if kind not in ("Block", "EvaBlock") or unsupported:
        raise UnsupportedEncoderError(
            f"{where} is timm's {kind}" + (f" with {', '.join(unsupported)}" if unsupported else "")
        )
    inner = _optional_norm(getattr(attn, "norm", nn.Identity()), f"{where}.attn.norm")
    hidden = _optional_norm(mlp.norm, f"{where}.mlp.norm")
    gated = hasattr(mlp, "fc1_g")
    norm1, norm2 = Norm.of(module.norm1, f"{where}.norm1"), Norm.of(module.norm2, f"{where}.norm2")
    in_proj = _queries_keys_values(attn, load)
    out_proj = Linear.of(attn.proj.weight, attn.proj.bias, load)
    fc2 = Linear.of(mlp.fc2.weight, mlp.fc2.bias, load)
    gain1, gain2 = _gain(module, 1), _gain(module, 2)
    if not gated and inner is None and hidden is None:
        return Block(
            norm1, in_proj, out_proj, norm2,
            Linear.of(mlp.fc1.weight, mlp.fc1.bias, load), fc2, gain1, gain2,
            activation_of(mlp.act, where), attn.num_heads,
        )  # fmt: skip
    if not gated or not isinstance(mlp.act, nn.SiLU):
        raise UnsupportedEncoderError(f"{where} has inner norms, but no gate by SiLU")
    weight = torch.cat([mlp.fc1_g.weight, mlp.fc1_x.weight])
    bias = None if mlp.fc1_g.bias is None else torch.cat([mlp.fc1_g.bias, mlp.fc1_x.bias])
    fc1 = Linear.of(weight, bias, load)
    return EvaBlock(
        norm1, in_proj, inner, out_proj, norm2, fc1, hidden, fc2, gain1, gain2, attn.num_heads
    )


def _queries_keys_values(attn: Any, load: Load) -> Linear:
    """The three projections as one; a bias that is missing for some of them counts as zero."""
    if attn.qkv is not None:
        bias = attn.qkv.bias
        if getattr(attn, "q_bias", None) is not None:
            bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
        return Linear.of(attn.qkv.weight, bias, load)
    parts = (attn.q_proj, attn.k_proj, attn.v_proj)
    biases = [part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias
              for part in parts]  # fmt: skip
    return Linear.of(torch.cat([part.weight for part in parts]), torch.cat(biases), load)


def _gain(module: Any, part: int) -> Tensor | None:
    """Layer scale after the attention (1) or the feed-forward part (2)."""
    scale = getattr(module, f"gamma_{part}", None)
    if scale is None:
        scale = getattr(getattr(module, f"ls{part}", None), "gamma", None)
    return None if scale is None else scale.detach().float()


def _optional_norm(module: nn.Module, where: str) -> Norm | None:
    return None if isinstance(module, nn.Identity) else Norm.of(module, where)


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    assert isinstance(value, tuple | list)
    return int(value[0]), int(value[1])
