"""The published WeakCLIP: its weights in our network, and its parameter names as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from tests.golden.published_heads import load_heads
from wsss.clip.encoder import ClipEncoder
from wsss.clip.load import load_clip
from wsss.config import from_mapping
from wsss.config.refine import WeakClipConfig
from wsss.refine.weakclip_network import WeakClipNetwork

_BUILT_FOR = 512  # side of the release's training crop, pixels
_HEADS = (
    (r"contexts", "head.prompt.contexts"),
    (r"(gamma|beta)", r"head.matching.\1"),
    (r"backbone\.fpn([1-4])\b", r"head.adapter.level\1"),
    (r"context_decoder\.memory_proj", "head.matching.co_attention.visual_in"),
    (r"context_decoder\.text_proj", "head.matching.co_attention.text_in"),
    (r"context_decoder\.anti_out_proj", "head.matching.co_attention.visual_out"),
    (r"context_decoder\.out_proj", "head.matching.co_attention.text_out"),
    (r"context_decoder\.anti_decoder", "head.matching.co_attention.visual_layers"),
    (r"context_decoder\.decoder", "head.matching.co_attention.text_layers"),
    (r"self_attn\.(.*)", r"own.\1"),
    (r"cross_attn\.(.*)", r"other.\1"),
    (r"\bq_proj", "queries"),
    (r"\bk_proj", "keys"),
    (r"\bv_proj", "values"),
    (r"\b(own|other)\.proj\b", r"\1.out"),
    (r"neck\.lateral_convs\.(\d)\.conv", r"head.decoder.neck.lateral.\1"),
    (r"neck\.fpn_convs\.(\d)\.conv", r"head.decoder.neck.smooth.\1"),
    (r"decode_head\.conv_seg", "head.decoder.head.classify"),
)
_TEXT = (
    (r"^text_encoder\.text_projection", "text.projection"),
    (r"^text_encoder\.positional_embedding", "text.positions"),
    (r"^text_encoder\.token_embedding", "text.embedding"),
    (r"^text_encoder\.ln_final", "text.norm"),
    (r"^text_encoder\.transformer", "text.transformer"),
)
_IMAGE = (
    (r"^backbone\.class_embedding", "image.class_embedding"),
    (r"^backbone\.positional_embedding", "image.positions"),
    (r"^backbone\.proj", "image.projection"),
    (r"^backbone\.conv1", "image.patches"),
    (r"^backbone\.ln_pre", "image.first_norm"),
    (r"^backbone\.ln_post", "image.last_norm"),
    (r"^backbone\.transformer\.resblocks", "image.blocks"),
)


def our_name(published: str) -> str:
    """A parameter's name in `WeakClipNetwork.trained` of the published variant."""
    name = published
    level = re.fullmatch(r"decode_head\.scale_heads\.(\d)\.(\d)\.(conv|bn)\.(\w+)", name)
    if level:  # odd places are the doublings
        part = {"conv": 0, "bn": 1}[level[3]]
        return f"head.decoder.head.levels.{level[1]}.{int(level[2]) // 2}.{part}.{level[4]}"
    for pattern, ours in (*_IMAGE, *_TEXT, *_HEADS):
        name = re.sub(pattern, ours, name)
    return name


def build(golden_dir: Path, arrays: Mapping[str, np.ndarray], **changes: object) -> WeakClipNetwork:
    """The published network with the golden weights, in evaluation mode.

    ``changes`` are options of ``refine.weakclip``.
    """
    heads = load_heads(golden_dir / "weakclip_heads.safetensors")
    clip = load_clip("from-weights", str(golden_dir / "clip_tiny.safetensors"))
    for part in ("weight", "bias"):
        clip.model.get_parameter(f"ln_final.{part}").data = heads[f"text_encoder.ln_final.{part}"]
    settings = _settings(heads, changes)
    encoder = ClipEncoder(clip.model.get_submodule("visual"))
    tokens = torch.from_numpy(arrays["tokens"].astype(np.int64))
    names = [str(name) for name in arrays["class_names"]]
    network = WeakClipNetwork(clip, encoder, names, settings, _BUILT_FOR, tokens)
    state = {
        our_name(name).removeprefix("head."): value[0] if name == "contexts" else value
        for name, value in heads.items()
        if not name.startswith("text_encoder.")
    }
    wanted = network.head.state_dict()
    for name in wanted:  # a counter that nothing here reads
        if name.endswith("num_batches_tracked"):
            state[name] = wanted[name]
    network.head.load_state_dict(state)
    network.train(False)
    return network


def _settings(heads: Mapping[str, torch.Tensor], changes: Mapping[str, object]) -> WeakClipConfig:
    weakclip = {
        "prompts": heads["contexts"].shape[1],
        "width": heads["context_decoder.text_proj.1.weight"].shape[0],
        "channels": heads["neck.fpn_convs.0.conv.weight"].shape[0],
    }
    mapping = {
        "variant": "published",
        "refine": {"method": "weakclip", "weakclip": weakclip | changes},
    }
    return from_mapping(mapping, partial=True).refine.weakclip
