"""The CAM source `external`: seeds that another project made, one file an image.

Layouts: ``npy`` holds a pickled dictionary, either ``{class: [H, W]}`` (MCTformer) or
``{"keys": classes, "attn_highres": [K, H, W]}`` (CLIP-ES; ``high_res`` and ``highres`` are read as
well); ``png`` holds hard labels (0 background, class + 1, 255 unknown). Classes are 0-based indices
into the data set's list. Seeds at image size are averaged over the cells of a grid, so that they
are stored and read like every other CAM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from wsss.artifacts.digest import digest_file
from wsss.cams.maps import average_to_grid
from wsss.cams.restricted import SeedError, read_npy
from wsss.cams.sources import CamMaps
from wsss.clip.threads import one_thread_each, ordered_map
from wsss.config import Config, expand_path
from wsss.config.base import Section
from wsss.data.manifest import Sample
from wsss.data.palette import read_label_png

UNKNOWN = 255
_STACKS = ("attn_highres", "high_res", "highres")
_SHOWN = 5


class ExternalSource:
    """Seeds of a data set.

    Args:
        config: cams.

    Raises:
        SeedError: the folder does not exist.
    """

    def __init__(self, config: Config) -> None:
        self._settings = config.cams.external
        self._folder = expand_path(self._settings.path)
        if not self._folder.is_dir():
            raise SeedError(
                f"{self._folder}: no such folder; cams.external.path must name the seeds' folder"
            )
        self.sections: Mapping[str, Section] = {"external": self._settings}
        self.weights: Mapping[str, str] = {}

    def key(self, sample: Sample) -> str:
        """Digest of the seed file; empty where there is none, which `maps` reports."""
        path = self._path(sample)
        return digest_file(path) if path.is_file() else ""

    def maps(self, samples: Sequence[Sample]) -> Iterator[CamMaps]:
        """See `CamSource.maps`.

        Raises:
            SeedError: after the last image, naming all seeds that are missing, unreadable or of
                another size than their image.
        """
        problems: list[str] = []
        with one_thread_each() as threads:
            for found in ordered_map(self._try, samples, threads=threads):
                if isinstance(found, CamMaps):
                    yield found
                else:
                    problems.append(found)
        if problems:
            more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            listed = "\n  ".join(problems[:_SHOWN])
            raise SeedError(
                f"{self._folder}: {len(problems)} of {len(samples)} seeds cannot be used "
                f"(expected one <id>.{self._settings.layout} an image):\n  {listed}{more}"
            )

    def _path(self, sample: Sample) -> Path:
        return self._folder / f"{sample.id}.{self._settings.layout}"

    def _try(self, sample: Sample) -> CamMaps | str:
        try:
            return self._one(sample)
        except (ValueError, OSError) as error:
            return str(error)

    def _one(self, sample: Sample) -> CamMaps:
        path = self._path(sample)
        size = (sample.height, sample.width)
        if self._settings.layout == "png":
            if not path.is_file():
                raise SeedError(f"{path}: no such file")
            maps = _hard(read_label_png(path), sample.tags, size, path)
        else:
            maps = _soft(read_npy(path), sample.tags, size, path)
        stride = self._settings.stride
        grid = (-(-size[0] // stride), -(-size[1] // stride))
        cells = average_to_grid(torch.from_numpy(maps[0]), grid)
        if maps[1] is not None:  # the mean over what is known
            known = average_to_grid(torch.from_numpy(maps[1])[None], grid)
            cells = torch.where(known > 0, cells / known.clamp_min(1e-6), 0.0)
        return CamMaps(sample, cells.clamp(0, 1).half().numpy(), None)


_Maps = tuple[Float[np.ndarray, "classes height width"], Float[np.ndarray, "height width"] | None]


def _hard(labels: np.ndarray, tags: Sequence[int], size: tuple[int, int], path: Path) -> _Maps:
    _check_size(labels.shape, size, path)
    hard = [labels == tag + 1 for tag in tags]
    stack = np.stack(hard) if hard else np.zeros((0, *size))
    return stack.astype(np.float32), (labels != UNKNOWN).astype(np.float32)


def _soft(content: Any, tags: Sequence[int], size: tuple[int, int], path: Path) -> _Maps:
    """Maps of the image's tags; a tag without a seed is 0, other classes are left out."""
    by_class = _by_class(content, path)
    stack = np.zeros((len(tags), *size), np.float32)
    for row, tag in enumerate(tags):
        if tag not in by_class:
            continue
        seed = np.asarray(by_class[tag], np.float32)
        _check_size(seed.shape, size, path)
        if not np.isfinite(seed).all() or seed.min() < -1e-3 or seed.max() > 1 + 1e-3:
            raise SeedError(
                f"{path}: class {tag} has values from {seed.min()} to {seed.max()}, expected 0 … 1"
            )
        stack[row] = seed
    return stack, None


def _by_class(content: Any, path: Path) -> dict[int, Any]:
    if isinstance(content, dict):
        name = next((name for name in _STACKS if name in content), None)
        if name is not None and "keys" in content:
            keys, maps = np.asarray(content["keys"]).tolist(), np.asarray(content[name])
            if maps.ndim == 3 and len(keys) == len(maps):
                return dict(zip(map(int, keys), maps, strict=True))
        elif all(isinstance(key, int | np.integer) for key in content):
            return {int(key): value for key, value in content.items()}
    found = f"keys {list(content)[:4]}" if isinstance(content, dict) else type(content).__name__
    raise SeedError(
        f"{path}: found {found}; expected a dictionary {{class: [H, W]}} or one with keys and "
        f"{' / '.join(_STACKS)}"
    )


def _check_size(found: tuple[int, ...], size: tuple[int, int], path: Path) -> None:
    if tuple(found) != size:
        raise SeedError(f"{path}: is of size {tuple(found)}, its image is {size} (height, width)")
