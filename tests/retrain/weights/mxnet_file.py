"""MXNet's parameter files, and its names of ResNet38's weights, written independently."""

import struct
from collections.abc import Mapping

import numpy as np

FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


def written(arrays: Mapping[str, np.ndarray], form: int) -> bytes:
    """A parameter file, as MXNet's `NDArray::Save` lays it out."""
    out = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for array in arrays.values():
        if form:
            out.append(struct.pack("<I", 0xF993FAC7 + form))
        if form == 2:
            out.append(struct.pack("<i", 0))
        out.append(struct.pack("<I", array.ndim))
        out.append(struct.pack(f"<{array.ndim}{'q' if form else 'I'}", *array.shape))
        if array.ndim:
            out.append(struct.pack("<iii", 2, 0, FLAGS[array.dtype.name]) + array.tobytes())
    out.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        out.append(struct.pack("<Q", len(name.encode())) + name.encode())
    return b"".join(out)


def mxnet_names() -> dict[str, str]:
    """ResNet38's names in MXNet by ours, written independently from the list of layers."""
    names = {"conv1a.weight": "arg:conv1a_weight"}
    normal = {
        "weight": "arg:{}_gamma", "bias": "arg:{}_beta",
        "running_mean": "aux:{}_moving_mean", "running_var": "aux:{}_moving_var",
    }  # fmt: skip
    blocks = {2: 3, 3: 3, 4: 6, 5: 3, 6: 1, 7: 1}
    for stage, count in blocks.items():
        branches = ["2a", "2b1", "2b2"] if stage > 5 else ["2a", "2b1"]
        for index in range(count):
            ours = f"b{stage}" + (f"_{index}" if index else "")
            theirs = f"{stage}" + (f"b{index}" if index else "a")
            for branch in branches + ([] if index else ["1"]):
                names[f"{ours}.conv_branch{branch}.weight"] = (
                    f"arg:res{theirs}_branch{branch}_weight"
                )
            for branch in branches:
                for part, pattern in normal.items():
                    name = pattern.format(f"bn{theirs}_branch{branch}")
                    names[f"{ours}.bn_branch{branch}.{part}"] = name
    return names | {f"bn7.{part}": pattern.format("bn7") for part, pattern in normal.items()}
