"""Checkpoints: round trip and refusal of foreign files."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance

ORIGIN = Provenance(stage="test", config={}, seed=0, code="c", packages={})


def test_round_trip_keeps_values_types_and_provenance(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    tensors = {"a": base, "view": base[1:3], "b": torch.ones(2, dtype=torch.bfloat16)}
    save_checkpoint(tmp_path / "c.safetensors", tensors, ORIGIN)
    loaded, origin = load_checkpoint(tmp_path / "c.safetensors")
    assert origin == ORIGIN
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype


def test_checkpoint_without_tensors(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", {}, ORIGIN)
    assert load_checkpoint(tmp_path / "c.safetensors") == ({}, ORIGIN)


def test_pickle_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(ArtifactError, match="no such checkpoint"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ArtifactError, match="damaged or no safetensors"):
        load_checkpoint(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ArtifactError, match="carries no digest"):
        load_checkpoint(path)
    save_checkpoint(path, {"a": torch.ones(9)}, ORIGIN)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ArtifactError, match="damaged"):
        load_checkpoint(path)
