"""Digests within and beside files."""

from __future__ import annotations

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


def test_the_seal_of_a_file_covers_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    facts = {"said": 'a "checksum":"' + "0" * 64 + '"'}  # what looks like one is none
    save_tensors(path, {"a": torch.arange(3.0)}, facts)
    tensors, found = load_tensors(path, "again")
    assert torch.equal(tensors["a"], torch.arange(3.0))
    assert found["said"] == facts["said"]
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ArtifactError, match=r"a\.safetensors: .+; do it again"):
            verify_checksum(path, "do it again")


def test_equal_tensors_and_facts_are_equal_files(tmp_path: Path) -> None:
    facts = {f"fact {number}": 'of "ä"\n\x7f\x01' for number in range(8)}
    written = set()
    for number in range(8):  # 9 entries, of which safetensors writes a random order
        save_tensors(tmp_path / f"{number}", {"b": torch.ones(2), "a": torch.ones(3)}, facts)
        tensors, found = load_tensors(tmp_path / f"{number}", "again")
        assert (set(tensors), found.items() >= facts.items()) == ({"a", "b"}, True)
        written.add((tmp_path / f"{number}").read_bytes())
    assert len(written) == 1


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not there; make it"):
        verify_checksum(tmp_path / "a", "make it")


def test_json_with_a_seal(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ä"}
    sealed = json_with_checksum(value)
    assert verified_json(sealed, tmp_path, "") == value
    with pytest.raises(ArtifactError, match="does not match its digest; again"):
        verified_json(sealed | {"a": "b"}, tmp_path, "again")
    for other in (value, [], None, 3):
        with pytest.raises(ArtifactError, match="carries no digest"):
            verified_json(other, tmp_path, "again")


def test_text_with_a_companion_that_other_tools_understand(tmp_path: Path) -> None:
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
