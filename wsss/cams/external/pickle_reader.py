"""Read pickled ``.npy`` dictionaries of other projects without running what they may carry.

A pickle is a program: it can name any function to be called when it is read. Two gates stand before
it. Its instructions are gone through without being obeyed, and none but those of which pickled
arrays are made may occur, nor more of them than arrays need. Then it is read with names that lead
to stand-ins (`wsss.cams.external.stand_ins`) and nowhere else.
"""

from __future__ import annotations

import math
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from wsss.cams.external.stand_ins import STAND_INS, plain
from wsss.errors import WsssError

_INSTRUCTIONS: Final = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE",
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "EMPTY_TUPLE",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET",
    "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
})  # fmt: skip
_MOST_INSTRUCTIONS = 200_000  # a dictionary of 80 arrays has two thousand
_MOST_TUPLES = 5_000  # hashing tuples inside of tuples has no bound but the stack
_PLACES = ("PUT", "BINPUT", "LONG_BINPUT")  # the unpickler makes room for all below a number
_MOST_BYTES = 2**31


class SeedError(WsssError, ValueError):
    """Seed files cannot be used; the message lists them together."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[module, name]
        except KeyError:
            asked = f"{module}.{name}"[:100]
            raise pickle.UnpicklingError(f"it asks for {asked}, which no array needs") from None


def read_npy(path: Path) -> Any:
    """Read a ``.npy`` file: a plain array, or the one object (a dictionary) of an object array.

    Raises:
        SeedError: the file is missing, damaged, or holds what is no array, number, text, list of
            numbers or dictionary of these.
    """
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            shape, dtype = _header(stream, version)
            left = os.fstat(stream.fileno()).st_size - stream.tell()
            if left > _MOST_BYTES:
                raise ValueError(f"{left} bytes, over {_MOST_BYTES}")
            if dtype.hasobject:
                return _unpickled(stream)
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != left:
                raise ValueError(f"its header says {shape} of {dtype}, {left} bytes follow")
            stream.seek(0)
            return np.load(stream, allow_pickle=False)
    except FileNotFoundError:
        raise SeedError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise SeedError(
            f"{path}: refused, since {error}; only arrays in a dictionary are read"
        ) from None
    except Exception as error:  # NumPy's parser of headers and pickle raise anything
        shown = str(error) or type(error).__name__
        raise SeedError(f"{path}: is damaged or no .npy file ({shown[:200]})") from None


def _unpickled(stream: BinaryIO) -> Any:
    start = stream.tell()
    _check_instructions(stream)
    stream.seek(start)
    return plain(_Restricted(stream, encoding="latin1").load())


def _check_instructions(stream: BinaryIO) -> None:
    """Go through the instructions, which reads their arguments and calls nothing."""
    tuples = 0
    for number, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        name = instruction.name
        tuples += name.startswith("TUPLE")
        if name not in _INSTRUCTIONS:
            raise pickle.UnpicklingError(f"it has the instruction {name}, which no array needs")
        if number >= _MOST_INSTRUCTIONS or tuples > _MOST_TUPLES:
            raise pickle.UnpicklingError("it has more instructions than arrays need")
        if name in _PLACES and isinstance(argument, int) and argument > _MOST_INSTRUCTIONS:
            raise pickle.UnpicklingError(f"it keeps something in place {argument}")


def _header(stream: BinaryIO, version: tuple[int, int]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the format; expected 1.0 or 2.0")
    return shape, dtype
