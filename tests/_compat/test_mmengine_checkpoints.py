"""What mmengine writes is read; what could run code is refused and does not run."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.logging.history_buffer import HistoryBuffer

from wsss._compat.mmengine_checkpoints import UnsafeCheckpointError, load_mmengine_checkpoint


class Call:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def test_reads_histories_and_weights(tmp_path: Path) -> None:
    hub = MessageHub("test-compat")
    for value in (3.0, 1.0, 2.0):
        hub.update_scalar("train/loss", value)
    hub.update_info("iter", 3)
    path = tmp_path / "iter_3.pth"
    weights = OrderedDict(weight=torch.arange(3.0))
    torch.save({"state_dict": weights, "message_hub": hub.state_dict()}, path)
    with pytest.raises(pickle.UnpicklingError):  # else this module has no reason to exist
        torch.load(path, weights_only=True)

    loaded = load_mmengine_checkpoint(path)

    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(3.0))
    history = loaded["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    np.testing.assert_array_equal(history.data[0], [3, 1, 2])
    assert history.min() == 1
    assert history.statistics("mean") == 2


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("function", [os.mkdir, eval, getattr])
def test_refuses_calls(tmp_path: Path, function: Any, legacy: bool) -> None:
    trace = tmp_path / "executed"
    arguments = {
        os.mkdir: (str(trace),),
        eval: (f"__import__('os').mkdir({str(trace)!r})",),
        # mmengine's own list of safe names allows this one, from which everything is reachable
        getattr: (HistoryBuffer, "__init__"),
    }
    path = tmp_path / "bad.pth"
    content = {
        "state_dict": {"weight": torch.zeros(1)},
        "extra": Call(function, *arguments[function]),
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeCheckpointError, match=r"bad\.pth"):
        load_mmengine_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_files_that_are_not_checkpoints_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    with pytest.raises(UnsafeCheckpointError, match=r"odd\.pth"):
        load_mmengine_checkpoint(path)


def test_truncated_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnsafeCheckpointError, match=r"cut\.pth"):
        load_mmengine_checkpoint(path)


def test_refuses_what_is_no_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(UnsafeCheckpointError, match="expected a dictionary"):
        load_mmengine_checkpoint(path)
