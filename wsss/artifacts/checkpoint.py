"""Checkpoints as safetensors, with provenance, facts and digest in the header; never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.checkpoint_header import REMEDY, checkpoint_provenance, require_checkpoint
from wsss.artifacts.checksum import BLANK, verify_checksum, write_checksum
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.errors import raise_unless_about


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    provenance: Provenance,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Atomically write named tensors and their provenance.

    Args:
        tensors: by name.
        provenance: what they were made from.
        facts: what is needed to use them, e.g. the names of the labels, as values for JSON;
            `wsss.artifacts.checkpoint_header.checkpoint_facts` reads them.
    """
    header = {"provenance": provenance.model_dump_json(), "facts": json.dumps(facts or {})}
    with atomic_path(path) as temporary:
        save_tensors(temporary, tensors, header)
        load_checkpoint(temporary)


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], Provenance]:
    """Read named tensors and their provenance; every byte of the file is checked.

    Raises:
        ArtifactError: the file is missing, damaged, or was not written by `save_checkpoint`.
    """
    require_checkpoint(path)
    tensors, _ = load_tensors(path, REMEDY)
    return tensors, checkpoint_provenance(path)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> None:
    """Write tensors and facts with their digest; not atomic by itself."""
    packed = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(packed, path, metadata={**facts, **BLANK})
    write_checksum(path)


def load_tensors(path: Path, remedy: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote.

    Args:
        remedy: what to do about a damaged one, for the message.

    Raises:
        ArtifactError: the file is missing or damaged, or carries no digest.
        ReadError: it cannot be read at present.
    """
    verify_checksum(path, remedy)
    try:
        with safe_open(path, framework="pt") as stored:
            facts = dict(stored.metadata() or {})
            return {name: stored.get_tensor(name) for name in stored.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, MemoryError) as error:
        raise_unless_about(path, error)
        raise ArtifactError(f"{path}: is no safetensors file ({error}); {remedy}") from None
