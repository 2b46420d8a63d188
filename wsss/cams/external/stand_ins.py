"""What stands for NumPy and torch while a pickle is read: nothing of theirs is called by the file.

A pickled array is a list of calls: make an empty array, set its type, shape and bytes. Even where
only array functions may be called, a made-up file can have them allocate what memory does not hold
or set a state that was never meant. So these classes take the calls, and an array is made by us,
once its bytes are known to be as many as its type and shape say.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from pickle import UnpicklingError
from typing import Any, Final

import numpy as np

_KIND = re.compile(r"[biuf](1|2|4|8)")
_ORDERS = ("<", ">", "|", "=")
_MOST_DIMENSIONS = 32


class DtypeStandIn:
    """A type of numbers, or of the object array that wraps a dictionary."""

    def __init__(self, code: object, *_: object) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not (_KIND.fullmatch(code) or code in ("O", "O4", "O8")):
            raise UnpicklingError(f"it has an array of type {_short(code)}, expected numbers")
        self._code, self._order = code, "="

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        order = order.decode("latin1") if isinstance(order, bytes) else order
        if order not in _ORDERS:
            raise UnpicklingError(f"it has an array of byte order {_short(order)}")
        self._order = order

    @property
    def holds_objects(self) -> bool:
        """Whether it is that of a wrapper."""
        return self._code.startswith("O")

    def of(self, raw: object, shape: object, *, fortran: bool) -> np.ndarray:
        """The array of some bytes.

        Args:
            raw: as many as type and shape say; text of Python 2 counts as bytes.
            shape: of the array.
            fortran: whether the first index moves fastest.
        """
        content = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(content, bytes | bytearray) or self.holds_objects:
            raise UnpicklingError(f"an array's content is {_short(raw)}, expected bytes")
        dtype = np.dtype(self._order + self._code)
        sides = _shape(shape)
        if math.prod(sides) * dtype.itemsize != len(content):
            raise UnpicklingError(f"an array says {sides} of {dtype}, but has {len(content)} bytes")
        array = np.frombuffer(content, dtype).reshape(sides, order="F" if fortran else "C")
        return array.astype(dtype.newbyteorder("="))


class ArrayStandIn:
    """An array; what it holds is known once its state was set."""

    content: Any = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise UnpicklingError("an array's state is not NumPy's")
        shape, dtype, fortran, raw = state[-4:]
        if not isinstance(dtype, DtypeStandIn):
            raise UnpicklingError(f"an array's type is {_short(dtype)}")
        if not dtype.holds_objects:
            self.content = dtype.of(raw, shape, fortran=bool(fortran))
        elif isinstance(raw, list) and len(raw) == 1 == math.prod(_shape(shape)):
            self.content = raw[0]  # how np.save wraps a dictionary
        else:
            raise UnpicklingError("it has an array of objects, expected arrays of numbers")


def plain(value: object, depth: int = 0) -> Any:
    """What was read, with arrays for their stand-ins: a dictionary, array, number or text.

    Lists and tuples may hold numbers alone.

    Raises:
        UnpicklingError: something else is in it.
    """
    if isinstance(value, ArrayStandIn) and depth < 4:
        return plain(value.content, depth + 1)
    if isinstance(value, np.ndarray | np.generic | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple):
        if all(isinstance(entry, int | float | np.generic) for entry in value):
            return value
        raise UnpicklingError("it has lists inside of lists, expected arrays")
    if isinstance(value, dict) and depth < 4:
        if odd := next((key for key in value if not isinstance(key, int | str | np.integer)), None):
            raise UnpicklingError(f"it has the key {_short(odd)}, expected numbers and words")
        return {key: plain(inner, depth + 1) for key, inner in value.items()}
    raise UnpicklingError(f"it has {_short(value)}, expected arrays")


def _reconstruct(kind: object, *_: object) -> ArrayStandIn:
    if kind is not _called_directly:
        raise UnpicklingError(f"it rebuilds {_short(kind)}")
    return ArrayStandIn()


def _called_directly(*_: object) -> Any:
    raise UnpicklingError("it calls numpy.ndarray itself, which no array does")


def _scalar(dtype: object, raw: object = None) -> Any:
    if not isinstance(dtype, DtypeStandIn):
        raise UnpicklingError(f"a number's type is {_short(dtype)}")
    return dtype.of(raw, (), fortran=False)[()]


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> ArrayStandIn:
    found = ArrayStandIn()
    found.__setstate__((shape, dtype, order == "F", raw))
    return found


def _bytes_of(text: object, encoding: object = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnpicklingError(f"it encodes {_short(text)} as {_short(encoding)}")
    return text.encode("latin1")


def _storage(content: object) -> Any:
    """The numbers of a tensor, by torch's own restricted reader."""
    import torch

    if not isinstance(content, bytes) or content.startswith(b"PK"):
        raise UnpicklingError("the numbers of a tensor are not torch's")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: object, size: object, stride: object, *_: object) -> ArrayStandIn:
    import torch

    if not isinstance(storage, torch.storage.TypedStorage):
        raise UnpicklingError(f"a tensor is made of {_short(storage)}")
    whole = torch.tensor([], dtype=storage.dtype).set_(storage._untyped_storage).numpy()
    sides = _shape(size)
    steps = tuple(math.prod(sides[place + 1 :]) for place in range(len(sides)))
    count = math.prod(sides)
    if stride != steps or not isinstance(offset, int) or not 0 <= offset <= len(whole) - count:
        raise UnpicklingError(f"a tensor says {sides}, but is not stored so")
    found = ArrayStandIn()
    found.content = whole[offset : offset + count].reshape(sides)
    return found


def _shape(value: object) -> tuple[int, ...]:
    sides = tuple(value) if isinstance(value, tuple | list) else ()
    if not isinstance(value, tuple | list) or len(sides) > _MOST_DIMENSIONS:
        raise UnpicklingError(f"an array's shape is {_short(value)}")
    if not all(isinstance(side, int) and 0 <= side < 2**48 for side in sides):
        raise UnpicklingError(f"an array's shape is {_short(value)}")
    return sides


def _short(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | bytes | int) else type(value).__name__


# The names under which NumPy 1 and 2 pickle arrays and scalars, and torch tensors.
STAND_INS: Final[Mapping[tuple[str, str], Callable[..., Any]]] = {
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
    ("numpy", "ndarray"): _called_directly,
    ("numpy", "dtype"): DtypeStandIn,
    ("_codecs", "encode"): _bytes_of,  # how protocol 2 stores bytes
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,  # IRN's class ids are a tensor
    ("torch.storage", "_load_from_bytes"): _storage,  # an unrestricted torch.load
    ("collections", "OrderedDict"): dict,
}
