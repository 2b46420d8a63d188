"""Read a checkpoint that others published: weights alone, by their names, without running code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsss._compat.mmengine_checkpoints import load_mmengine_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.errors import raise_unless_about

_SAFETENSORS = ".safetensors"
_WEIGHTS = ("state_dict", "model_state_dict", "model")  # where trainers put them
_PREFIXES = ("module.", "model.")  # of wrappers that distribute or time a training


@dataclass(frozen=True)
class Source:
    """What a file holds."""

    tensors: dict[str, Tensor]
    """By the authors' names, without the prefixes of wrappers."""
    others: tuple[str, ...] = ()
    """Entries next to the weights: optimizer, meta …"""


def read_source(path: Path) -> Source:
    """Read ``.safetensors``, or what `torch.save` wrote: weights, or a dictionary with weights.

    Raises:
        ArtifactError: the file is damaged, or holds something else than tensors where
            weights are expected.
        UnsafeCheckpointError: the file names code in addition to weights; nothing of it was run.
    """
    if path.suffix == _SAFETENSORS:
        try:
            return Source(_bare(load_file(path), path))
        except (SafetensorError, OSError) as error:
            raise_unless_about(path, error)
            raise ArtifactError(f"{path}: is damaged or no safetensors file ({error})") from None
    loaded: Mapping[str, Any] = load_mmengine_checkpoint(path)
    others: tuple[str, ...] = ()
    inner = next((name for name in _WEIGHTS if isinstance(loaded.get(name), Mapping)), None)
    if inner is not None:
        others = tuple(str(name) for name in loaded if name != inner)
        loaded = loaded[inner]
    odd = [
        f"{name!r} ({type(v).__name__})" for name, v in loaded.items() if not _is_weight(name, v)
    ]
    if odd or not loaded:
        raise ArtifactError(
            f"{path}: expected tensors by name, found {', '.join(odd) or 'nothing'}; pass the "
            "state dict alone, or a dictionary that has it as 'state_dict'"
        )
    return Source(_bare(loaded, path), others)


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _bare(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without prefixes that all names share."""
    names: Sequence[str] = list(tensors)
    if not names:
        raise ArtifactError(f"{path}: holds no tensor")
    cut = 0
    while prefix := next(
        (p for p in _PREFIXES if all(name.startswith(p, cut) for name in names)), ""
    ):
        cut += len(prefix)
    return {name[cut:]: value for name, value in tensors.items()}
