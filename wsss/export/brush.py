"""Label Studio's run-length code of brush masks.

Its form is that of @thi.ng/rle-pack: 32 bits with the number of values, 5 with the bits of a value
less one, four times 4 with the bits of a length less one; then blocks. Each begins with 1 for equal
values, with two bits that choose the bits of the length, and with the length less one; the value
follows. The values are those of a flat picture of four channels (red, green, blue, alpha).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

_CHANNELS = 4
_VALUE_BITS = 8
_LENGTH_BITS = (4, 8, 12, 16)
_LONGEST = 2 ** _LENGTH_BITS[-1]


def encode_brush(mask: UInt8[np.ndarray, "height width"]) -> list[int]:
    """The bytes of a mask; 255 in all channels inside, 0 outside.

    Args:
        mask: 1 inside, 0 outside.
    """
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    lengths = _CHANNELS * np.diff(starts, append=flat.size)
    header = f"{_CHANNELS * flat.size:032b}{_VALUE_BITS - 1:05b}"
    header += "".join(f"{bits - 1:04b}" for bits in _LENGTH_BITS)
    values = ("11111111" if flat[start] else "00000000" for start in starts)
    blocks = [
        _block(part, value)
        for length, value in zip(lengths.tolist(), values, strict=True)
        for part in _parts(length)
    ]
    bits = header + "".join(blocks)
    digits = np.frombuffer(bits.encode("ascii"), np.uint8) - ord("0")
    return np.packbits(digits).tolist()


def _parts(length: int) -> list[int]:
    whole, rest = divmod(length, _LONGEST)
    return [_LONGEST] * whole + [rest] * bool(rest)


def _block(length: int, value: str) -> str:
    index = next(i for i, bits in enumerate(_LENGTH_BITS) if length <= 2**bits)
    return f"1{index:02b}{length - 1:0{_LENGTH_BITS[index]}b}{value}"
