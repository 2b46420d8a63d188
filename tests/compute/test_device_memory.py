"""Batches that do not fit into the memory of a GPU are cut; the error is what torch raises."""

import logging

import pytest
import torch

from wsss.compute import device_memory
from wsss.compute.device_memory import DeviceMemoryError, FittingBatches

_SAID = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8.00 GiB of "
    "which 1.00 GiB is free."
)


class Gpu:
    """Runs batches of at most `room` images."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def squares(self, part: slice) -> list[int]:
        self.sizes.append(part.stop - part.start)
        if self.sizes[-1] > self.room:
            raise torch.OutOfMemoryError(_SAID)
        return [index**2 for index in range(part.start, part.stop)]


def test_batches_are_halved_until_they_fit(caplog: pytest.LogCaptureFixture) -> None:
    """The size that fits is remembered; order and number of the results stay."""
    gpu, batches = Gpu(2), FittingBatches("lower clip.long_side")
    with caplog.at_level(logging.WARNING):
        assert batches.run(gpu.squares, 9) == [index**2 for index in range(9)]
        assert batches.run(gpu.squares, 3) == [0, 1, 4]
    assert gpu.sizes == [9, 4, 2, 2, 2, 2, 1, 2, 1]
    assert [record.message[:11] for record in caplog.records] == ["9 images at", "4 images at"]


def test_one_image_that_does_not_fit() -> None:
    with pytest.raises(DeviceMemoryError) as raised:
        FittingBatches("lower clip.long_side").run(Gpu(0).squares, 2)
    assert str(raised.value) == (
        "out of memory on the GPU: Tried to allocate 20.00 GiB; lower clip.long_side"
    )


def test_a_plan_comes_before_the_first_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_memory, "free_bytes", lambda: 1000)
    gpu = Gpu(3)
    assert len(FittingBatches("").run(gpu.squares, 7, bytes_each=250)) == 7
    assert gpu.sizes == [3, 3, 1]
    gpu = Gpu(3)
    FittingBatches("").run(gpu.squares, 2, bytes_each=5000)
    assert gpu.sizes == [1, 1]
