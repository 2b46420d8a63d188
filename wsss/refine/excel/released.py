"""The released ExCEL: its head's names as ours, and its copy of CLIP (arXiv:2503.20826).

Only the head is trained, and only the head is imported. The release also saves the whole frozen
CLIP and loads with ``strict=False``, which hides what does not fit; here the copy is compared,
value by value, with the encoder that will be used. The head of WeCLIP, of which no checkpoint was
released, has the same names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wsss.clip.position import resize_positions
from wsss.refine.excel.method import Excel
from wsss.refine.released.matching import ImportReport, Part, assemble

NEEDED: Mapping[str, object] = {
    "refine.excel.features": "aliased",
    "clip.normalization": "imagenet",
    "clip.position_rounding": "float32",
}
REMEDY = (
    "Use the preset of the data set with variant: published; its sizes are those of the release "
    "(refine.excel.width 256, ViT-B/16 of OpenAI). What you know to be of no use can be named "
    "with --leave-out."
)
_MLPS = "decoder_fts_fuse.linears_modulelist"
_STACKED = {
    "fusion.first_weight": "proj.weight",
    "fusion.first_bias": "proj.bias",
    "fusion.second_weight": "proj_2.weight",
    "fusion.second_bias": "proj_2.bias",
}
_NAMES = (
    (r"^fusion\.mix", "decoder_fts_fuse.linear_fuse"),
    (r"^decoder\.classify", "decoder.linear_pred"),
    (r"^decoder\.blocks", "decoder.transformer.resblocks"),
    (r"\.in_proj\.", ".attn.in_proj_"),
    (r"\.out_proj\.", ".attn.out_proj."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.fc1\.", ".mlp.c_fc."),
    (r"\.fc2\.", ".mlp.c_proj."),
)
# The calibrated blocks hold their attention's weights once more in another wrapper.
_WRAPPED = ((".attn.qkv.", ".attn.in_proj_"), (".attn.proj.", ".attn.out_proj."))
_ANCHOR = "visual.conv1.weight"
_POSITIONS = "visual.positional_embedding"


def import_tensors(refiner: Excel, tensors: Mapping[str, Tensor]) -> tuple[ImportReport, list[str]]:
    """Make the state of `Excel.trained`; see `wsss.refine.weakclip.released.import_tensors`."""
    report, rest = assemble(tensors, parts(refiner.trained.state_dict()))
    clip = refiner.setup.encoder_input.clip.model
    return report, compare_clip(report, tensors, rest, clip.state_dict())


def parts(state: Mapping[str, Tensor]) -> dict[str, Part]:
    """What each of ours is made from.

    Args:
        state: ours, by name; their shapes count.
    """
    return {ours: _part(ours, tuple(tensor.shape)) for ours, tensor in state.items()}


def published_name(ours: str) -> str:
    """A tensor's name in the release, for those that are not stacked."""
    for pattern, theirs in _NAMES:
        ours = re.sub(pattern, theirs, ours)
    return ours


def _part(ours: str, shape: tuple[int, ...]) -> Part:
    if ours not in _STACKED:
        return Part((published_name(ours),), shape)
    sources = tuple(f"{_MLPS}.{block}.{_STACKED[ours]}" for block in range(shape[0]))
    if ours.endswith("bias"):  # (D) of each block -> (b, 1, D)
        return Part(sources, shape[2:], lambda theirs: torch.stack(list(theirs))[:, None])
    # (out, in) of each block -> (b, in, out)
    return Part(sources, shape[:0:-1], lambda theirs: torch.stack([t.T for t in theirs]))


def compare_clip(
    report: ImportReport,
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    clip: Mapping[str, Tensor],
) -> list[str]:
    """Hold a copy of CLIP, under whatever prefix, against the encoder in use.

    Args:
        report: receives what is equal and what is not.
        tensors: theirs.
        names: of theirs that are not in the report yet.
        clip: the encoder's weights, by OpenAI's names.

    Returns:
        Those of ``names`` that are no part of a copy.
    """
    prefix = next((n.removesuffix(_ANCHOR) for n in names if n.endswith(_ANCHOR)), None)
    if prefix is None:
        return list(names)
    rest: list[str] = []
    equal: list[str] = []
    resized: list[str] = []
    wrapped: list[str] = []
    other: list[str] = []
    for name in names:
        bare = name.removeprefix(prefix)
        clip_name = _in_clip(bare)
        if not name.startswith(prefix) or clip_name not in clip:
            rest.append(name)
            continue
        theirs, ours = tensors[name].float(), clip[clip_name].float().cpu()
        kind = equal if clip_name == bare else wrapped
        if clip_name == _POSITIONS and theirs.ndim == 2 and theirs.shape != ours.shape:
            kind, ours = resized, _at_size(ours, len(theirs))
        if theirs.shape != ours.shape or not _close(theirs, ours):
            other.append(f"{name}: {_difference(theirs, ours)}")
        else:
            kind.append(name)
    why = "the encoder in use has the same values"
    report.add_group("left out", f"copy of the frozen CLIP: {why}", equal)
    repeated = f"attention of the calibrated blocks, wrapped once more: {why}"
    report.add_group("left out", repeated, wrapped)
    report.add_group(
        "left out",
        "positions that were resized for training: those of the encoder in use, resized, are the "
        "same, and it resizes them for every image",
        resized,
    )
    report.add_problems("other than in the encoder in use (clip.model, clip.pretrained)", other)
    return rest


def _in_clip(name: str) -> str:
    for wrapped, plain in _WRAPPED:
        name = name.replace(wrapped, plain)
    return name


def _at_size(table: Tensor, rows: int) -> Tensor:
    """A square table of positions at another square grid; as it is where there is none."""
    old, new = math.isqrt(len(table) - 1), math.isqrt(rows - 1)
    if 1 + old * old != len(table) or 1 + new * new != rows:
        return table
    return resize_positions(table, (old, old), (new, new))


def _close(theirs: Tensor, ours: Tensor) -> bool:
    """Equal up to a rounding to half precision, in which OpenAI's weights come."""
    return torch.allclose(theirs, ours, rtol=1e-3, atol=1e-6)


def _difference(theirs: Tensor, ours: Tensor) -> str:
    if theirs.shape != ours.shape:
        return f"shape {tuple(theirs.shape)}, expected {tuple(ours.shape)}"
    return f"differs by up to {float((theirs - ours).abs().max()):.2g}"
