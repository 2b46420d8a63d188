"""The published WeakCLIP: its checkpoint, and that in our network."""

import copy
import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from tests.golden.published_heads import load_heads
from wsss.clip.encoder import ClipEncoder
from wsss.clip.load import LoadedClip, load_clip
from wsss.clip.position import resize_positions
from wsss.config.load import from_mapping
from wsss.refine.released.matching import assemble
from wsss.refine.weakclip.network import WeakClipNetwork
from wsss.refine.weakclip.options import WeakClipOptions
from wsss.refine.weakclip.released import parts, published_name

BUILT_FOR = 512  # side of the release's training crop, pixels
_TEXT = ("positional_embedding", "text_projection", "transformer.", "token_embedding.", "ln_final.")
_CONTEXT = 5  # tokens of a name, with start and end


def our_names(network: WeakClipNetwork) -> dict[str, str]:
    """Names in `WeakClipNetwork.trained` by the published ones."""
    return {published_name(name): name for name in network.trained.state_dict()}


def checkpoint(golden_dir: Path) -> dict[str, torch.Tensor]:
    """What the published implementation would have saved: towers, adapter and head.

    The golden files have the towers as OpenAI's CLIP names them; the released modules cut the text
    positions and resize those of the image when they load them (eq. 3 and 5 of
    docs/methods/weakclip.md).
    """
    heads = load_heads(golden_dir / "weakclip_heads.safetensors")
    tensors: dict[str, torch.Tensor] = {}
    for name, value in load_file(golden_dir / "clip_tiny.safetensors").items():
        if name.startswith("visual."):
            tensors[name.replace("visual.", "backbone.", 1)] = value.float()
        elif name.startswith(_TEXT):
            tensors[f"text_encoder.{name}"] = value.float()
    table = tensors["backbone.positional_embedding"]
    patch = tensors["backbone.conv1.weight"].shape[-1]
    old, new = round((len(table) - 1) ** 0.5), BUILT_FOR // patch
    tensors["backbone.positional_embedding"] = resize_positions(table, (old, old), (new, new))
    length = heads["contexts"].shape[1] + _CONTEXT
    tensors["text_encoder.positional_embedding"] = tensors["text_encoder.positional_embedding"][
        :length
    ]
    return tensors | heads


@functools.cache
def _clip(golden_dir: Path) -> LoadedClip:
    """Each network takes a copy, which it changes and moves."""
    return load_clip("from-weights", str(golden_dir / "clip_tiny.safetensors"))


def new_network(
    golden_dir: Path, arrays: Mapping[str, np.ndarray], device: torch.device, **changes: object
) -> WeakClipNetwork:
    """The published network with a random head on the golden CLIP.

    ``changes`` are options of ``refine.weakclip``.
    """
    heads = load_heads(golden_dir / "weakclip_heads.safetensors")
    shared = _clip(golden_dir)
    clip = replace(shared, model=copy.deepcopy(shared.model))
    for part in ("weight", "bias"):
        clip.model.get_parameter(f"ln_final.{part}").data = heads[f"text_encoder.ln_final.{part}"]
    encoder = ClipEncoder(clip.model.get_submodule("visual"), device=device)
    tokens = torch.from_numpy(arrays["tokens"].astype(np.int64))
    names = [str(name) for name in arrays["class_names"]]
    settings = _settings(heads, changes)
    return WeakClipNetwork(clip, encoder, names, settings, BUILT_FOR, tokens)


def build(
    golden_dir: Path, arrays: Mapping[str, np.ndarray], device: torch.device, **changes: object
) -> WeakClipNetwork:
    """The published network with the golden weights, in evaluation mode.

    ``changes`` are options of ``refine.weakclip``.
    """
    network = new_network(golden_dir, arrays, device, **changes)
    state = {f"head.{name}": value for name, value in network.head.state_dict().items()}
    if network.trained is not network.head:
        state = dict(network.trained.state_dict())
    width = network.head.decoder.neck._width
    assembled, rest = assemble(checkpoint(golden_dir), parts(state, width))
    assert not assembled.problems
    assert not rest or network.trained is network.head  # which does not contain the towers
    inside = "head." if network.trained is network.head else ""
    network.trained.load_state_dict(
        {k.removeprefix(inside): v for k, v in assembled.tensors.items()}
    )
    network.train(False)
    return network


def _settings(heads: Mapping[str, torch.Tensor], changes: Mapping[str, object]) -> WeakClipOptions:
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
