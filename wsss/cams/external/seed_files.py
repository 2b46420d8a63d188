"""CAMs of one image (seeds) from a file of another project.

Layouts: ``npy`` holds a pickled dictionary, either ``{class: [H, W]}`` (MCTformer, SEAM) or
``{"keys": classes, "high_res": [K, H, W]}`` (IRN; CLIP-ES calls it ``attn_highres``, others
``highres``); ``png`` holds hard labels (0 background, class + 1, 255 unknown). Classes are indices
into the data set's list, counted from 0, or from 1 where 0 is a background (CRF variants).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from wsss.cams.external.pickle_reader import SeedError, read_npy
from wsss.cams.maps import average_to_grid
from wsss.data.images.label_png import read_label_png

Layout = Literal["npy", "png"]

UNKNOWN = 255
_STACKS = ("attn_highres", "high_res", "highres")
_MAX_CLASSES = 9999
_TOLERANCE = 1e-3  # resizing and half precision leave values this far outside of 0 … 1


@dataclass(frozen=True)
class ExternalCams:
    """The external CAMs of an image at its size, one map per tag."""

    maps: Float32[np.ndarray, "classes height width"]
    """In 0 … 1; zero for a tag without a seed."""
    valid: Float32[np.ndarray, "height width"] | None
    """0 where hard labels are 255, else 1; None: valid everywhere."""
    absent: tuple[int, ...]
    """Tags without a seed; empty for hard labels, which often lack a tag."""
    extra: tuple[int, ...]
    """Classes with a seed that are no tags; they are dropped."""

    def on_grid(self, grid: tuple[int, int]) -> Float[torch.Tensor, "classes rows columns"]:
        """The mean over the valid pixels of each cell; 0 where there is none."""
        cells = average_to_grid(torch.from_numpy(self.maps), grid)
        if self.valid is not None:
            coverage = average_to_grid(torch.from_numpy(self.valid)[None], grid)
            cells = torch.where(coverage > 0, cells / coverage.clamp_min(1e-6), 0.0)
        return cells.clamp(0, 1)


def read_external_cams(
    path: Path, layout: Layout, tags: Sequence[int], size: tuple[int, int], *, first_class: int = 0
) -> ExternalCams:
    """Read the seeds of one image.

    Args:
        layout: see the module.
        tags: the image's classes, in the order of the maps.
        size: height and width of the image, pixels.
        first_class: ``npy``: key of the first class; lower keys are no classes.

    Raises:
        SeedError: the file is missing, damaged, of another layout or size, or has values outside
            of 0 … 1.
        ImageError: a PNG cannot be decoded.
    """
    if not path.is_file():
        raise SeedError(f"{path}: no such file")
    if layout == "png":
        return _hard(read_label_png(path), tags, size, path)
    by_key = _by_key(read_npy(path), path)
    by_class = {k - first_class: seed for k, seed in by_key.items() if k >= first_class}
    return _soft(by_class, tags, size, path)


def read_hard_labels(
    path: Path, tags: Sequence[int], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width"]:
    """Hard labels as stored, except that classes that are no tags of the image become 255.

    Arguments and errors as `read_external_cams`.
    """
    if not path.is_file():
        raise SeedError(f"{path}: no such file")
    labels = read_label_png(path)
    _check_size(labels.shape, size, path)
    allowed = np.isin(labels, [0, *(tag + 1 for tag in tags)])
    return np.where(allowed, labels, np.uint8(UNKNOWN))


def _hard(
    labels: np.ndarray, tags: Sequence[int], size: tuple[int, int], path: Path
) -> ExternalCams:
    _check_size(labels.shape, size, path)
    maps = np.zeros((len(tags), *size), np.float32)
    for row, tag in enumerate(tags):
        maps[row] = labels == tag + 1
    classes = {int(label) - 1 for label in np.unique(labels) if label not in (0, UNKNOWN)}
    valid = (labels != UNKNOWN).astype(np.float32)
    return ExternalCams(maps, valid, (), tuple(sorted(classes - set(tags))))


def _soft(
    by_class: dict[int, Any], tags: Sequence[int], size: tuple[int, int], path: Path
) -> ExternalCams:
    maps = np.zeros((len(tags), *size), np.float32)
    for row, tag in enumerate(tags):
        if tag not in by_class:
            continue
        stored = by_class[tag]
        if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "biuf":
            kind = type(stored).__name__
            raise SeedError(f"{path}: class {tag} holds {kind}, expected numbers [H, W]")
        _check_size(stored.shape, size, path)
        seed = stored.astype(np.float32)
        if not np.isfinite(seed).all() or seed.min() < -_TOLERANCE or seed.max() > 1 + _TOLERANCE:
            raise SeedError(
                f"{path}: class {tag} has values from {seed.min()} to {seed.max()}, expected 0 … 1"
            )
        maps[row] = seed
    absent = tuple(tag for tag in tags if tag not in by_class)
    return ExternalCams(maps, None, absent, tuple(sorted(set(by_class) - set(tags))))


def _by_key(content: Any, path: Path) -> dict[int, Any]:
    if isinstance(content, dict):
        name = next((name for name in _STACKS if name in content), None)
        if name is not None and "keys" in content:
            keys, maps = np.asarray(content["keys"]), np.asarray(content[name])
            if keys.shape == maps.shape[:1] and maps.ndim == 3 and keys.dtype.kind in "iu":
                return _checked_keys(dict(zip(map(int, keys.tolist()), maps, strict=True)), path)
        elif all(isinstance(key, int | np.integer) for key in content):
            return _checked_keys({int(key): value for key, value in content.items()}, path)
    kind = type(content).__name__
    if isinstance(content, dict):
        kind = f"keys {[str(key)[:40] if isinstance(key, str) else key for key in content][:4]}"
    raise SeedError(
        f"{path}: found {kind}; expected a dictionary {{class: [H, W]}} or one with keys and "
        f"{' / '.join(_STACKS)}"
    )


def _checked_keys(by_key: dict[int, Any], path: Path) -> dict[int, Any]:
    if any(abs(key) > _MAX_CLASSES for key in by_key):
        raise SeedError(f"{path}: numbers a class beyond {_MAX_CLASSES}")
    return by_key


def _check_size(shape: tuple[int, ...], size: tuple[int, int], path: Path) -> None:
    if shape != size:
        raise SeedError(f"{path}: is of size {shape}, its image is {size} (height, width)")
