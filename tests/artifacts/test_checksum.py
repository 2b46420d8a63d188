"""Checksums inside files and in sidecars."""

import subprocess
from pathlib import Path

import pytest
import torch

from wsss.artifacts.checkpoint import load_tensors, save_tensors
from wsss.artifacts.checksum import (
    json_with_checksum,
    read_checked_text,
    sidecar,
    verified_json,
    verify_checksum,
    write_checked_text,
)
from wsss.artifacts.errors import ArtifactError


def test_the_checksum_of_a_file_covers_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    facts = {"said": 'a "checksum":"' + "0" * 64 + '"'}  # what looks like one is none
    save_tensors(path, {"a": torch.arange(3.0)}, facts)
    tensors, loaded = load_tensors(path, "again")
    assert torch.equal(tensors["a"], torch.arange(3.0))
    assert loaded["said"] == facts["said"]
    content = path.read_bytes()
    for offset in range(len(content)):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 4]) + content[offset + 1 :])
        with pytest.raises(ArtifactError, match=r"a\.safetensors: .+; do it again"):
            verify_checksum(path, "do it again")


def test_equal_tensors_and_facts_give_equal_files(tmp_path: Path) -> None:
    facts = {f"fact {index}": 'of "ä"\n\x7f\x01' for index in range(8)}
    written = set()
    for index in range(8):  # safetensors writes 9 entries in random order
        save_tensors(tmp_path / f"{index}", {"b": torch.ones(2), "a": torch.ones(3)}, facts)
        tensors, loaded = load_tensors(tmp_path / f"{index}", "again")
        assert (set(tensors), loaded.items() >= facts.items()) == ({"a", "b"}, True)
        written.add((tmp_path / f"{index}").read_bytes())
    assert len(written) == 1


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not there; make it"):
        verify_checksum(tmp_path / "a", "make it")


def test_json_with_a_checksum(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ä"}
    sealed = json_with_checksum(value)
    assert verified_json(sealed, tmp_path, "") == value
    with pytest.raises(ArtifactError, match="does not match its digest; again"):
        verified_json(sealed | {"a": "b"}, tmp_path, "again")
    for other in (value, [], None, 3):
        with pytest.raises(ArtifactError, match="carries no digest"):
            verified_json(other, tmp_path, "again")


def test_text_with_a_sidecar_that_other_tools_read(tmp_path: Path) -> None:
    path = tmp_path / "a b.csv"
    write_checked_text(path, "ä\n")
    assert read_checked_text(path, "again") == "ä\n"
    command = ["sha256sum", "--check", sidecar(path).name]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    path.write_text("a\n")
    with pytest.raises(ArtifactError, match=r"a b\.csv: does not match its digest in .+; again"):
        read_checked_text(path, "again")
    sidecar(path).unlink()
    with pytest.raises(ArtifactError, match=r"a b\.csv\.sha256: .+cannot be read"):
        read_checked_text(path, "again")
