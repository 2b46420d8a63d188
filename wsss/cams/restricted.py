"""Read pickled ``.npy`` dictionaries of other projects without running what they may carry.

A pickle can name any function to be called when it is read. This reader lets it name nothing but
what rebuilds arrays, tensors and numbers; anything else is refused before it is called.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wsss.errors import WsssError

# The names under which NumPy 1 and 2 pickle arrays and scalars.
_ALLOWED = {
    (f"numpy.{core}.multiarray", name)
    for core in ("core", "_core")
    for name in ("_reconstruct", "scalar")
} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # how protocol 2 stores bytes
    ("torch._utils", "_rebuild_tensor_v2"),  # IRN's class ids are a tensor
    ("collections", "OrderedDict"),
}
_STORAGE = ("torch.storage", "_load_from_bytes")  # an unrestricted torch.load

# What NumPy and pickle raise on files that are cut off or made up.
_DAMAGE = (
    *(ValueError, EOFError, OSError, MemoryError, TypeError, AttributeError, LookupError),
    RuntimeError,
)


class SeedError(WsssError, ValueError):
    """Seed files cannot be used; the message lists them together."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _STORAGE:
            return _restricted_storage
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return super().find_class(module, name)


def _restricted_storage(content: bytes) -> Any:
    """The numbers of a tensor, by torch's own restricted reader."""
    import torch

    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def read_npy(path: Path) -> Any:
    """Read a ``.npy`` file: a plain array, or the one object (a dictionary) of an object array.

    Raises:
        SeedError: the file is missing, damaged, or holds what is no array, number, text, list,
            tuple or dictionary of these.
    """
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            if _dtype(stream, version).hasobject:
                content = _Restricted(stream, encoding="latin1").load()
                return content.item() if isinstance(content, np.ndarray) else content
            stream.seek(0)
            return np.load(stream, allow_pickle=False)
    except FileNotFoundError:
        raise SeedError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise SeedError(
            f"{path}: refused, since {error}; only arrays in a dictionary are read"
        ) from None
    except _DAMAGE as error:
        raise SeedError(f"{path}: is damaged or no .npy file ({error})") from None


def _dtype(stream: BinaryIO, version: tuple[int, int]) -> np.dtype[Any]:
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)[2]
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)[2]
    raise ValueError(f"version {version} of the format; expected 1.0 or 2.0")
