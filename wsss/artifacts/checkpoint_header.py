"""Read the header of a checkpoint without importing torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from wsss.artifacts.checksum import verify_checksum
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.errors import raise_unless_about

REMEDY = "if a stage wrote it, delete it and rerun that stage"
_BLOCK = 1 << 20


def checkpoint_weights(path: Path, method: str) -> dict[str, str]:
    """Digests of a checkpoint's tensors and of what they were trained on top of, for provenance.

    The header's provenance is left out, so that trainings that end alike count as equal.

    Args:
        path: checkpoint of the refine-train stage.
        method: the refiner that it must belong to.

    Returns:
        The weights of its provenance and, where the checkpoint holds tensors, ``refiner``.

    Raises:
        ArtifactError: the file is missing, damaged, or of another refiner.
    """
    _verify(path)
    provenance = checkpoint_provenance(path)
    stored_method = provenance.config.get("refine", {}).get("method")
    if stored_method != method:
        raise ArtifactError(
            f"{path}: was trained for the refiner {stored_method!r}, the configuration says "
            f"{method!r}; rerun refine-train"
        )
    tensors = tensors_digest(path)
    return provenance.weights | ({"refiner": tensors} if tensors else {})


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this pipeline."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="np") as stored:
            return "provenance" in (stored.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise_unless_about(path, error)
        return False


def checkpoint_provenance(path: Path) -> Provenance:
    """What a checkpoint was made from; only its header is read, and not checked.

    Raises:
        ArtifactError: the file is missing, or no checkpoint of this pipeline.
    """
    try:
        return Provenance.model_validate_json(_header(path)["provenance"])
    except ValidationError:
        raise ArtifactError(
            f"{path}: carries a provenance of another kind; rerun the stage that makes it"
        ) from None


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """The facts that `wsss.artifacts.checkpoint.save_checkpoint` stored.

    Raises:
        ArtifactError: the file is missing or damaged, or is no checkpoint of this pipeline.
    """
    _verify(path)
    facts: dict[str, Any] = json.loads(_header(path).get("facts", "{}"))
    return facts


def require_checkpoint(path: Path) -> None:
    """Raise `ArtifactError` where there is no such file."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such checkpoint; run the stage that makes it first")


def _verify(path: Path) -> None:
    require_checkpoint(path)
    verify_checksum(path, REMEDY)


def _header(path: Path) -> dict[str, str]:
    require_checkpoint(path)
    try:
        with safe_open(path, framework="np") as stored:
            metadata = dict(stored.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise_unless_about(path, error)
        raise ArtifactError(
            f"{path}: is damaged or no safetensors file ({error}); rerun the stage that makes it"
        ) from None
    if "provenance" not in metadata:
        raise ArtifactError(
            f"{path}: carries no provenance, so it is no checkpoint of this pipeline"
        )
    return metadata


def tensors_digest(path: Path) -> str:
    """The sha256 of a checkpoint's tensors, whatever its provenance says; empty without tensors."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        header.pop("__metadata__", None)
        total = hashlib.sha256(digest_json(header).encode())
        while block := stream.read(_BLOCK):
            total.update(block)
    return total.hexdigest() if header else ""
