"""MXNet's parameter files are read in all three dense formats; anything else is one clear error."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retrain.weights.mxnet_file import FLAGS, written
from wsss.artifacts.errors import ArtifactError
from wsss.retrain.weights.mxnet_params import read_params


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    by_name = {f"arg:{kind}": (random.random((2, 3)) * 99).astype(kind) for kind in FLAGS}
    return by_name | {"aux:é": random.random((4, 1, 2, 2)).astype(np.float32)}


@pytest.mark.parametrize("form", [0, 1, 2])
def test_reads_what_was_written(form: int, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "a.params"
    path.write_bytes(written(arrays, form))
    params = read_params(path)
    assert list(params) == list(arrays)
    for name, array in arrays.items():
        assert params[name].dtype == array.dtype
        np.testing.assert_array_equal(params[name], array)


def test_an_array_without_dimensions_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.params"
    path.write_bytes(written({"arg:a": np.array(1.0, np.float32)}, 2))
    assert read_params(path)["arg:a"].size == 0


@pytest.mark.parametrize("form", [0, 1, 2])
def test_a_file_cut_anywhere_is_refused(form: int, tmp_path: Path) -> None:
    path, whole = tmp_path / "a.params", written({"arg:a": np.arange(6.0).reshape(2, 3)}, form)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ArtifactError, match=r"a\.params: is (damaged|no MXNet)"):
            read_params(path)


HEAD = struct.pack("<QQQ", 0x112, 0, 1)
ONE = struct.pack("<Ii", 0xF993FAC9, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4" + bytes(40), "is no MXNet parameter file"),
        (struct.pack("<QQQ", 0x112, 0, 2**63), "arrays in the 0 bytes that are left"),
        (HEAD + struct.pack("<I", 33) + bytes(99), "an array of 33 dimensions"),
        (HEAD + struct.pack("<II", 0xF993FACA, 0) + bytes(99), "NumPy shapes"),
        (HEAD + struct.pack("<Ii", 0xF993FAC9, 1) + bytes(99), "storage type 1"),
        (HEAD + ONE + struct.pack("<Iqiii", 1, 1, 1, 0, 12) + bytes(9), "element type 12"),
        (HEAD + ONE + struct.pack("<Iqiii", 1, -1, 1, 0, 0) + bytes(9), r"shape \[-1\]"),
        (HEAD + ONE + struct.pack("<Iqqiii", 2, 2**62, 2**62, 1, 0, 0), "bytes are announced"),
        (written({"arg:a": np.zeros(1)}, 2) + b"x", "1 bytes follow"),
        (written({"arg:a": np.zeros(1)}, 2)[:-5] + b"\xff" * 5, "a name that is no text"),
        (written({"a": np.zeros(1), "b": np.ones(1)}, 2)[:-1] + b"a", "1 different names"),
    ],
)
def test_wrong_content_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.params").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_params(tmp_path / "a.params")


@settings(max_examples=150, deadline=None)
@given(offset=st.integers(0, 200), value=st.integers(0, 255), form=st.integers(0, 2))
def test_a_flipped_byte_gives_an_error_or_arrays(
    offset: int, value: int, form: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / "a.params"
    whole = bytearray(written({"arg:a": np.arange(6.0).reshape(2, 3)}, form))
    whole[offset % len(whole)] = value
    path.write_bytes(whole)
    try:
        params = read_params(path)
    except ArtifactError:
        return
    assert sum(math.prod(array.shape) for array in params.values()) <= len(whole)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.params: cannot be read"):
        read_params(tmp_path / "none.params")
