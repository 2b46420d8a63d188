"""Read pickled ``.npy`` dictionaries of other projects without running what they may carry.

A pickle is a program: it can name any function to be called when it is read. Two gates protect the
reader. First its instructions are listed without running them: only those that build pickled arrays
may occur, and no more of them than arrays need. Then it is read with names that lead to the
stand-ins below and nowhere else.

A pickled array is a list of calls: make an empty array, set its type, shape and bytes. Even where
only array functions may be called, a forged file can make them allocate more than the memory holds
or set a state that was never meant. So the stand-ins take the calls, and an array is built only
after its number of bytes was compared with its type and shape.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, Final

import numpy as np

from wsss.errors import WsssError, raise_unless_about

_INSTRUCTIONS: Final = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE",
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "EMPTY_TUPLE",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET",
    "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
})  # fmt: skip
_MAX_INSTRUCTIONS = 200_000  # a dictionary of 80 arrays has two thousand
_MAX_TUPLES = 5_000  # hashing tuples inside of tuples has no bound but the stack
_MEMO_WRITES = ("PUT", "BINPUT", "LONG_BINPUT")  # the unpickler allocates the memo up to the index
_MAX_BYTES = 2**31
_KIND = re.compile(r"[biuf](1|2|4|8)")
_ORDERS = ("<", ">", "|", "=")
_MAX_DIMENSIONS = 32


class SeedError(WsssError, ValueError):
    """Seed files cannot be used; the message lists them together."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[module, name]
        except KeyError:
            full_name = f"{module}.{name}"[:100]
            raise UnpicklingError(f"it asks for {full_name}, which no array needs") from None


def read_npy(path: Path) -> Any:
    """Read a ``.npy`` file: a plain array, or the one object (a dictionary) of an object array.

    Raises:
        SeedError: the file is missing, damaged, or holds anything but arrays, numbers, texts, lists
            of numbers and dictionaries of these.
    """
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            shape, dtype = _header(stream, version)
            size = os.fstat(stream.fileno()).st_size - stream.tell()
            if size > _MAX_BYTES:
                raise ValueError(f"{size} bytes, over {_MAX_BYTES}")
            if dtype.hasobject:
                return _unpickled(stream)
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
                raise ValueError(f"its header says {shape} of {dtype}, {size} bytes follow")
            stream.seek(0)
            return np.load(stream, allow_pickle=False)
    except FileNotFoundError:
        raise SeedError(f"{path}: no such file") from None
    except UnpicklingError as error:
        raise SeedError(
            f"{path}: refused, since {error}; only arrays in a dictionary are read"
        ) from None
    except Exception as error:  # NumPy's parser of headers and pickle raise anything
        if not isinstance(error, MemoryError):  # the file may ask for any amount
            raise_unless_about(path, error)
        reason = str(error) or type(error).__name__
        raise SeedError(f"{path}: is damaged or no .npy file ({reason[:200]})") from None


def _unpickled(stream: BinaryIO) -> Any:
    start = stream.tell()
    _check_instructions(stream)
    stream.seek(start)
    return plain(_Restricted(stream, encoding="latin1").load())


def _check_instructions(stream: BinaryIO) -> None:
    """Check the instructions; this reads their arguments and calls nothing."""
    tuples = 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        name = instruction.name
        tuples += name.startswith("TUPLE")
        if name not in _INSTRUCTIONS:
            raise UnpicklingError(f"it has the instruction {name}, which no array needs")
        if count >= _MAX_INSTRUCTIONS or tuples > _MAX_TUPLES:
            raise UnpicklingError("it has more instructions than arrays need")
        if name in _MEMO_WRITES and isinstance(argument, int) and argument > _MAX_INSTRUCTIONS:
            raise UnpicklingError(f"it stores an object at memo index {argument}")


def _header(stream: BinaryIO, version: tuple[int, int]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the format; expected 1.0 or 2.0")
    return shape, dtype


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
        """Whether it is the type of a wrapper."""
        return self._code.startswith("O")

    def build(self, raw: object, shape: object, *, fortran: bool) -> np.ndarray:
        """An array from its bytes.

        Args:
            raw: as many bytes as type and shape need; text of Python 2 counts as bytes.
            fortran: whether the first index changes fastest.
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
    """An array; its content is set with its state."""

    content: Any = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise UnpicklingError("an array's state is not NumPy's")
        shape, dtype, fortran, raw = state[-4:]
        if not isinstance(dtype, DtypeStandIn):
            raise UnpicklingError(f"an array's type is {_short(dtype)}")
        if not dtype.holds_objects:
            self.content = dtype.build(raw, shape, fortran=bool(fortran))
        elif isinstance(raw, list) and len(raw) == 1 == math.prod(_shape(shape)):
            self.content = raw[0]  # how np.save wraps a dictionary
        else:
            raise UnpicklingError("it has an array of objects, expected arrays of numbers")


def plain(value: object, depth: int = 0) -> Any:
    """A value that was read, with arrays for their stand-ins: dictionary, array, number or text.

    Lists and tuples may hold numbers alone.

    Raises:
        UnpicklingError: it holds something else.
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
        if bad := next((key for key in value if not isinstance(key, int | str | np.integer)), None):
            raise UnpicklingError(f"it has the key {_short(bad)}, expected numbers and words")
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
    return dtype.build(raw, (), fortran=False)[()]


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> ArrayStandIn:
    array = ArrayStandIn()
    array.__setstate__((shape, dtype, order == "F", raw))
    return array


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
    contiguous = tuple(math.prod(sides[axis + 1 :]) for axis in range(len(sides)))
    count = math.prod(sides)
    if stride != contiguous or not isinstance(offset, int) or not 0 <= offset <= len(whole) - count:
        raise UnpicklingError(f"a tensor says {sides}, but is not stored contiguously")
    array = ArrayStandIn()
    array.content = whole[offset : offset + count].reshape(sides)
    return array


def _shape(value: object) -> tuple[int, ...]:
    sides = tuple(value) if isinstance(value, tuple | list) else ()
    if not isinstance(value, tuple | list) or len(sides) > _MAX_DIMENSIONS:
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
