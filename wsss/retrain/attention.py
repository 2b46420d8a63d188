"""Memory for the attention of a segmenter, which grows with the fourth power of a photo's side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wsss.data.manifest import Sample

_LARGEST_BYTES = 16 << 30  # of the attention of a photo and its mirror image
_COPIES = 4  # scores and their softmax, of the photo and of its mirror image


def attention_bytes(backbone: Any, height: int, width: int) -> int:
    """The largest attention that a network holds for a photo and its mirror image, in float32.

    Scores and softmax of all heads of one block. A network without attention has 0.

    Args:
        height: of what enters the network, whole patches, pixels.
    """
    return 4 * _COPIES * _largest_matrix(backbone, height, width)


def _largest_matrix(backbone: Any, height: int, width: int) -> int:
    """Entries of the largest attention matrix of an image, of all heads."""
    if hasattr(backbone, "sr_ratios"):  # SegFormer: keys are pooled, stage by stage
        largest = 0
        stages = zip(backbone.strides, backbone.sr_ratios, backbone.num_heads, strict=True)
        for stride, pooling, heads in stages:
            height, width = -(-height // stride), -(-width // stride)
            keys = (height // pooling) * (width // pooling)
            largest = max(largest, heads * height * width * keys)
        return largest
    if not hasattr(backbone, "patch_size"):
        return 0
    tokens = 1 + (height // backbone.patch_size) * (width // backbone.patch_size)
    return int(backbone.heads * tokens**2)


def refuse_too_large(
    samples: Sequence[Sample], bytes_of: Callable[[int, int], int], remedy: str
) -> None:
    """Refuse photos whose attention does not fit into memory, before the work starts.

    Args:
        bytes_of: memory for the attention at a photo's height and width.
        remedy: what a person can do.

    Raises:
        ValueError: names how many there are, the largest, and the remedy.
    """
    sizes = {(sample.height, sample.width): sample for sample in samples}
    needed = {size: bytes_of(*size) for size in sizes}
    too_large = {size for size, count in needed.items() if count > _LARGEST_BYTES}
    if not too_large:
        return
    worst = max(too_large, key=needed.__getitem__)
    sample = sizes[worst]
    count = sum((one.height, one.width) in too_large for one in samples)
    raise ValueError(
        f"{count} of {len(samples)} photos are too large for the segmenter's attention: "
        f"{sample.id!r} of {sample.width} x {sample.height} pixels needs about "
        f"{needed[worst] / 2**30:.0f} GiB, at most {_LARGEST_BYTES >> 30} GiB are allowed; {remedy}"
    )
