"""The released WeakCLIP: its names as ours, its 91 labels of COCO.

The release trains both towers of CLIP, through a learning rate that leaks into groups whose rate is
0. Its checkpoint therefore holds towers that are no longer CLIP's, and they are imported too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from wsss.data.datasets.classes import spelling
from wsss.data.datasets.coco import CATEGORY_IDS, UNUSED_CATEGORIES
from wsss.refine.released.matching import ImportReport, Part, assemble
from wsss.refine.weakclip.method import WeakClip, class_texts

NEEDED: Mapping[str, object] = {
    "refine.weakclip.zero_lr": "leak",
    "refine.weakclip.co_attention": "unchained",
    "refine.weakclip.class_token": "twice",
    "refine.weakclip.positions": "twice",
    "clip.normalization": "imagenet",
    "clip.keep_ratio": True,  # which patch-text CAMs would change
}
REMEDY = (
    "Use the preset of the data set with variant: published; its sizes are those of the release "
    "(refine.weakclip.width and channels 256, refine.train.crop 512, ViT-B/16). COCO's checkpoint "
    "has 91 labels: set refine.weakclip.extra_labels to the ten names without annotations. What "
    "you know to be of no use can be named with --leave-out."
)
_COCO_LABELS = 1 + len(CATEGORY_IDS) + len(UNUSED_CATEGORIES)
_POSITIONS = "text.positions"
_CLASSIFIER = "head.decoder.head.classify."
_LATERAL = "head.decoder.neck.lateral."
_LEVEL = re.compile(r"head\.decoder\.head\.levels\.(\d)\.(\d)\.([01])\.(\w+)")
_DEAD_LAYER = re.compile(r"context_decoder\.(?:anti_)?decoder\.(\d+)\.")
_NAMES = (
    (r"^text\.embedding", "text_encoder.token_embedding"),
    (r"^text\.positions", "text_encoder.positional_embedding"),
    (r"^text\.transformer", "text_encoder.transformer"),
    (r"^text\.norm", "text_encoder.ln_final"),
    (r"^text\.projection", "text_encoder.text_projection"),
    (r"^image\.patches", "backbone.conv1"),
    (r"^image\.class_embedding", "backbone.class_embedding"),
    (r"^image\.positions", "backbone.positional_embedding"),
    (r"^image\.first_norm", "backbone.ln_pre"),
    (r"^image\.blocks", "backbone.transformer.resblocks"),
    (r"^image\.last_norm", "backbone.ln_post"),
    (r"^image\.projection", "backbone.proj"),
    (r"^head\.prompt\.contexts", "contexts"),
    (r"^head\.matching\.(gamma|beta)", r"\1"),
    (r"^head\.adapter\.level([1-4])", r"backbone.fpn\1"),
    (r"^head\.matching\.co_attention\.visual_in", "context_decoder.memory_proj"),
    (r"^head\.matching\.co_attention\.text_in", "context_decoder.text_proj"),
    (r"^head\.matching\.co_attention\.visual_out", "context_decoder.anti_out_proj"),
    (r"^head\.matching\.co_attention\.text_out", "context_decoder.out_proj"),
    (r"^head\.matching\.co_attention\.visual_layers", "context_decoder.anti_decoder"),
    (r"^head\.matching\.co_attention\.text_layers", "context_decoder.decoder"),
    (r"\.self_attn\.", ".self_attn."),
    (r"\.cross_attn\.", ".cross_attn."),
    (r"_attn\.queries\.", "_attn.q_proj."),
    (r"_attn\.keys\.", "_attn.k_proj."),
    (r"_attn\.values\.", "_attn.v_proj."),
    (r"_attn\.out\.", "_attn.proj."),
    (r"^head\.decoder\.neck\.lateral\.(\d)", r"neck.lateral_convs.\1.conv"),
    (r"^head\.decoder\.neck\.smooth\.(\d)", r"neck.fpn_convs.\1.conv"),
    (r"^head\.decoder\.head\.classify", "decode_head.conv_seg"),
)


def import_tensors(
    refiner: WeakClip, tensors: Mapping[str, Tensor]
) -> tuple[ImportReport, list[str]]:
    """Make the state of `WeakClip.trained`.

    Args:
        tensors: theirs.

    Returns:
        The report, and the names of theirs that are not in it yet.
    """
    classes, order = refiner.setup.classes, None
    extra = class_texts(refiner.setup)[classes.label_count :]
    renumbered = classes.name == "coco" and _label_count(tensors) == _COCO_LABELS
    if renumbered:
        order = coco_order(extra)
    state = refiner.trained.state_dict()
    report, rest = assemble(tensors, parts(state, refiner.encoder.width, order))
    if renumbered and order is None:
        names = list(UNUSED_CATEGORIES.values())
        report.add_problems(
            "set otherwise",
            [f"refine.weakclip.extra_labels is {extra}, the checkpoint was trained with {names}"],
        )
    last = refiner.options.depth - 1
    report.add_group(
        "unused",
        "co-attention layers before the last of a stack, whose results the release never uses",
        (n for n in report.used if (m := _DEAD_LAYER.match(n)) and int(m[1]) < last),
    )
    return report, rest


def published_name(ours: str) -> str:
    """A tensor's name in the release, from that in our network."""
    if level := _LEVEL.fullmatch(ours):  # odd places of theirs are the doublings
        kind = ("conv", "bn")[int(level[3])]
        return f"decode_head.scale_heads.{level[1]}.{2 * int(level[2])}.{kind}.{level[4]}"
    for pattern, theirs in _NAMES:
        ours = re.sub(pattern, theirs, ours)
    return ours


def parts(
    state: Mapping[str, Tensor], width: int, order: Sequence[int] | None = None
) -> dict[str, Part]:
    """What each of ours is made from.

    Args:
        state: ours, by name; their shapes count.
        width: of a token of the image tower.
        order: for each label of ours the label of theirs; None: the same.
    """
    return {ours: _part(ours, tensor, width, order) for ours, tensor in state.items()}


def _part(ours: str, tensor: Tensor, width: int, order: Sequence[int] | None) -> Part:
    source, shape = (published_name(ours),), tuple(tensor.shape)
    if ours == "head.prompt.contexts":
        return Part(source, (1, *shape), lambda theirs: theirs[0][0])
    if ours == _POSITIONS:
        return Part(source, shape, more_rows=True)
    if order is not None and ours.startswith(_CLASSIFIER):
        return Part(source, shape, partial(_reordered, order=order, axis=0, first=0))
    if order is not None and ours.startswith(_LATERAL) and ours.endswith(".weight"):
        # (out, D + K, 1, 1): the match map of K labels comes after the D channels of a token
        return Part(source, shape, partial(_reordered, order=order, axis=1, first=width))
    return Part(source, shape)


def _reordered(theirs: Sequence[Tensor], *, order: Sequence[int], axis: int, first: int) -> Tensor:
    index = torch.tensor([*range(first), *(first + label for label in order)])
    return theirs[0].index_select(axis, index.to(theirs[0].device))


def coco_order(extra: Sequence[str]) -> list[int] | None:
    """For each label of ours the label of the release, which numbers COCO by category id.

    Ten of the ids, 1 to 90, have no annotation; here these come after the classes, so that the
    classes keep their labels.

    Args:
        extra: our labels after the classes.

    Returns:
        None: ``extra`` is something else than the ten names.
    """
    unused = {spelling(name): category for category, name in UNUSED_CATEGORIES.items()}
    categories = [unused.get(spelling(text), 0) for text in extra]
    if sorted(categories) != sorted(UNUSED_CATEGORIES):
        return None
    return [0, *CATEGORY_IDS, *categories]


def _label_count(tensors: Mapping[str, Tensor]) -> int | None:
    bias = tensors.get(published_name(f"{_CLASSIFIER}bias"))
    return None if bias is None else len(bias)
