"""What mmengine writes is read; what could run code is refused and does not run."""

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.logging.history_buffer import HistoryBuffer

from wsss._compat.mmengine_checkpoints import UnsafeCheckpointError, load_mmengine_checkpoint


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


def test_refuses_what_is_no_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(UnsafeCheckpointError, match="expected a dictionary"):
        load_mmengine_checkpoint(path)
