"""The authors' files, made of ours: what a released checkpoint of the same network would hold."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wsss.clip.load import LoadedClip
from wsss.clip.position import resize_positions
from wsss.refine.excel import released as excel_release
from wsss.refine.weakclip import released as weakclip_release

Weights = dict[str, Tensor]


def weakclip_file(ours: Mapping[str, Tensor], positions: int = 13) -> Weights:
    """The release's state dict from `WeakClipNetwork.trained`'s."""
    theirs = {weakclip_release.published_name(name): value.clone() for name, value in ours.items()}
    theirs["contexts"] = theirs["contexts"][None]
    table = theirs["text_encoder.positional_embedding"]
    more = torch.ones(positions - len(table), table.shape[1])  # rows that no text of ours reaches
    theirs["text_encoder.positional_embedding"] = torch.cat([table, more])
    return theirs


def excel_file(head: Mapping[str, Tensor], clip: LoadedClip, side: int | None = None) -> Weights:
    """The release's state dict from that of `Head`, with the copy of CLIP.

    ``side`` is that of the grid to which the copy's positions are resized.
    """
    theirs: Weights = {}
    for ours, part in excel_release.parts(head).items():
        stacked = head[ours]
        for block, source in enumerate(part.sources):
            value = stacked if len(part.sources) == 1 else stacked[block]
            if len(part.sources) > 1:
                value = value.T if ours.endswith("weight") else value[0]
            theirs[source] = value.clone()
    copy = {f"encoder.{name}": value.clone() for name, value in clip.model.state_dict().items()}
    for kind in ("weight", "bias"):
        last = f"encoder.visual.transformer.resblocks.{_depth(copy) - 1}.attn"
        copy[f"{last}.qkv.{kind}"] = copy[f"{last}.in_proj_{kind}"].clone()
        copy[f"{last}.proj.{kind}"] = copy[f"{last}.out_proj.{kind}"].clone()
    if side is not None:
        name = "encoder.visual.positional_embedding"
        old = round((len(copy[name]) - 1) ** 0.5)
        copy[name] = resize_positions(copy[name], (old, old), (side, side))
    return theirs | copy


def _depth(copy: Mapping[str, Tensor]) -> int:
    return len([n for n in copy if n.startswith("encoder.visual") and n.endswith("in_proj_bias")])


def save(tensors: Mapping[str, Tensor], path: Path, **beside: object) -> Path:
    """Write as mmcv does: the weights among other entries."""
    torch.save(
        {"meta": {"iter": 8000, "PALETTE": [[0, 0, 0]]}, "state_dict": dict(tensors)} | beside, path
    )
    return path
