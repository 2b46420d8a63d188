"""A refused file of weights never comes with advice to run its code."""

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wsss._compat.mmengine_checkpoints import load_mmengine_checkpoint
from wsss.clip.weights import read_weights
from wsss.errors import WsssError


@pytest.mark.parametrize("reader", [load_mmengine_checkpoint, read_weights])
@pytest.mark.parametrize("content", ["object", "text", "nothing"])
def test_no_advice_to_load_unsafely(
    tmp_path: Path, reader: Callable[[Path], Any], content: str
) -> None:
    path = tmp_path / "weights.pth"
    if content == "object":
        torch.save({"a": collections.UserDict()}, path)
    else:
        path.write_bytes(b"no weights" if content == "text" else b"")
    with pytest.raises(WsssError) as caught:
        reader(path)
    message = str(caught.value)
    assert str(path) in message
    assert "weights_only" not in message
    assert "safe_globals" not in message
    assert ("UserDict" in message) == (content == "object")
