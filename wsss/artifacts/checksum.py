"""Digests inside a file or next to it, so that damage is noticed before use.

A CSV or a tensor with one changed byte is still a valid file. What the pipeline reads again
therefore carries a sha256 of all that is used: a safetensors file in its header, JSON under a key,
other text in a sidecar file that ``sha256sum -c`` understands.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.artifacts.atomic import write_text
from wsss.artifacts.digest import digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.errors import raise_unless_about

BLANK = {"checksum": "0" * 64}
"""What goes into the header of a safetensors file before `write_checksum`."""
_KEY = "sha256"
_PLACE = re.compile(rb'"checksum":"([0-9a-f]{64})"')
_LARGEST_HEADER = 100_000_000  # safetensors' own limit
_BLOCK = 1 << 22


def write_checksum(path: Path) -> None:
    """Put the digest of a safetensors file, which was saved with `BLANK`, into its header.

    safetensors writes the entries of its metadata in random order; here they are sorted, so that
    equal tensors and facts give equal files.
    """
    _sort_metadata(path)
    position, _, digest = _look(path, "write it again")
    with path.open("r+b") as stream:
        stream.seek(position)
        stream.write(digest.encode())
        stream.flush()
        os.fsync(stream.fileno())


def verify_checksum(path: Path, remedy: str) -> None:
    """Check every byte of a file that `write_checksum` wrote to.

    Args:
        remedy: what to do about a damaged one, for the message.

    Raises:
        ArtifactError: it is damaged, is not there, or carries no digest.
        ReadError: it cannot be read at present.
    """
    try:
        _, stored, digest = _look(path, remedy)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: is not there; {remedy}") from None
    except OSError as error:
        raise_unless_about(path, error)
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    if stored != digest:
        raise ArtifactError(f"{path}: is damaged: it does not match its digest; {remedy}")


def json_with_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its digest under a further key."""
    return {**value, _KEY: digest_json(value)}


def verified_json(value: Any, path: Path, remedy: str) -> dict[str, Any]:
    """What `json_with_checksum` was given.

    Args:
        value: the parsed JSON.
        path: its file, for messages.
        remedy: as `verify_checksum`.

    Raises:
        ArtifactError: it is damaged or carries no digest.
    """
    if not isinstance(value, dict) or _KEY not in value:
        raise ArtifactError(
            f"{path}: carries no digest; it is damaged or of an older version; {remedy}"
        )
    content = {key: entry for key, entry in value.items() if key != _KEY}
    if digest_json(content) != value[_KEY]:
        raise ArtifactError(f"{path}: is damaged: it does not match its digest; {remedy}")
    return content


def sidecar(path: Path) -> Path:
    """The file that holds the digest of a text."""
    return path.with_name(f"{path.name}.sha256")


def write_checked_text(path: Path, text: str) -> None:
    """Atomically write a text, and before it the sidecar with its digest."""
    write_text(sidecar(path), f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n")
    write_text(path, text)


def read_checked_text(path: Path, remedy: str) -> str:
    """Read what `write_checked_text` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ArtifactError: it is damaged, or its sidecar is missing or damaged.
        ReadError: one of them cannot be read at present.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise_unless_about(path, error)
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    digest_file = sidecar(path)
    try:
        stored = digest_file.read_bytes()
    except OSError as error:
        raise_unless_about(digest_file, error)
        raise ArtifactError(
            f"{digest_file}: the digest of {path.name} cannot be read ({error.strerror}); {remedy}"
        ) from None
    if stored != f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode():
        raise ArtifactError(
            f"{path}: does not match its digest in {digest_file.name}: one of them is damaged or "
            f"was edited; {remedy}"
        )
    return content.decode()


def _sort_metadata(path: Path) -> None:
    """Sort the entries of a safetensors file's metadata; its header keeps its length."""
    with path.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise AssertionError(f"{path}: {len(text)} bytes of header, {length} were written")
        stream.seek(8)
        stream.write(text.ljust(length))


def _look(path: Path, remedy: str) -> tuple[int, str, str]:
    """Position of the digest, the stored digest, and the right one."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(_LARGEST_HEADER, path.stat().st_size):
            raise ArtifactError(f"{path}: is damaged or no safetensors file; {remedy}")
        stream.seek(0)
        head = stream.read(8 + length)
        places = list(_PLACE.finditer(head))
        if len(places) != 1:
            raise ArtifactError(
                f"{path}: carries no digest: it is damaged, of an older version, or no file of "
                f"this pipeline; {remedy}"
            )
        start, end = places[0].span(1)
        total = hashlib.sha256(head[:start] + BLANK["checksum"].encode() + head[end:])
        while block := stream.read(_BLOCK):
            total.update(block)
    return start, places[0][1].decode(), total.hexdigest()
