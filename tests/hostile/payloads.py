"""Harmful files; each payload would create a file called ``ran`` if it ran."""

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._command = f"touch {folder / 'ran'}"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


class Calls:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._all = (function, arguments)

    def __reduce__(self) -> Any:
        return self._all


def npy(path: Path, content: bytes, *, kind: str = "|O", shape: str = "()") -> Path:
    """An ``.npy`` file with any header."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode())
    with path.open("ab") as stream:
        stream.write(content)
    return path


def pickled(value: object, protocol: int = 4) -> Callable[[Path], None]:
    """A maker of an ``.npy`` file with one pickled object."""
    return lambda path: npy(path, pickle.dumps(value, protocol=protocol)) and None


def png(
    width: int,
    height: int,
    *,
    depth: int = 8,
    colour: int = 2,
    rows: bytes | None = None,
    chunks: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG, chunk by chunk, whose header may be wrong."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if rows is None:
        rows = (b"\0" + bytes(width * samples * depth // 8)) * height
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in body
    )


def safetensors(header: str | bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with a header of any text."""
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def repacked(source: Path, target: Path, **changes: Any) -> None:
    """A copy of a torch archive with members replaced (by the end of their name) or packed."""
    method = changes.pop("method", zipfile.ZIP_STORED)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for member in old.infolist():
            content = old.read(member)
            for end, replacement in changes.items():
                if member.filename.endswith(end):
                    content = replacement
            new.writestr(member.filename, content)


def nested_list(depth: int) -> bytes:
    """A pickle of lists inside of lists."""
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def nested_key(depth: int) -> bytes:
    """A pickle of a dictionary whose key is tuples inside of tuples, which hashing follows."""
    return b"\x80\x04}" + b")" + b"\x85" * depth + b"K\x01s."


def maps(size: tuple[int, int] = (20, 30)) -> dict[int, np.ndarray]:
    """Good seeds of two classes."""
    random = np.random.default_rng(0)
    return {label: random.random(size, dtype=np.float32) for label in (0, 1)}
