"""Checkpoints as safetensors, with their provenance in the header; never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance


def save_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], provenance: Provenance
) -> None:
    """Atomically write named tensors and their provenance."""
    packed = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(packed, temporary, metadata={"provenance": provenance.model_dump_json()})
        load_checkpoint(temporary)


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], Provenance]:
    """Read named tensors and their provenance.

    Raises:
        ArtifactError: the file is missing, damaged, or was not written by `save_checkpoint`.
    """
    if not path.exists():
        raise ArtifactError(f"{path}: no such checkpoint; run the stage that makes it")
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: is damaged or no safetensors file ({error})") from None
    if "provenance" not in metadata:
        raise ArtifactError(
            f"{path}: carries no provenance, so it is no checkpoint of this pipeline"
        )
    return tensors, Provenance.model_validate_json(metadata["provenance"])
