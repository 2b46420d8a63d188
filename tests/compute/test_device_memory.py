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
    """Runs batches of at most `room` images, or of as many bytes."""

    def __init__(self, room: int, bytes_each: int = 1) -> None:
        self.room, self.bytes_each = room, bytes_each
        self.sizes: list[int] = []

    def squares(self, part: slice) -> list[int]:
        self.sizes.append(part.stop - part.start)
        if self.sizes[-1] * self.bytes_each > self.room:
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


def test_each_batch_is_planned_by_its_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a large photo small ones run together; after small ones a large one runs alone."""
    monkeypatch.setattr(device_memory, "free_bytes", lambda: 1000)
    batches, gpu = FittingBatches(""), Gpu(800)
    for bytes_each, sizes in ((700, [1, 1]), (100, [2]), (700, [1, 1]), (10, [2])):
        gpu.bytes_each, gpu.sizes = bytes_each, []
        assert batches.run(gpu.squares, 2, bytes_each=bytes_each) == [0, 1]
        assert gpu.sizes == sizes
    monkeypatch.setattr(device_memory, "free_bytes", lambda: 250)  # others took some meanwhile
    gpu = Gpu(200, 100)
    batches.run(gpu.squares, 4, bytes_each=100)
    assert gpu.sizes == [2, 2]


@pytest.mark.parametrize("free", [None, 10_000])
def test_a_failure_is_remembered_in_bytes(
    monkeypatch: pytest.MonkeyPatch, free: int | None
) -> None:
    """Of images, where nobody knows what one takes."""
    monkeypatch.setattr(device_memory, "free_bytes", lambda: free)
    batches = FittingBatches("")
    for bytes_each, sizes in ((300, [8, 4, 2, 2, 2, 2]), (60, [8]), (100, [6, 2]), (900, [1] * 8)):
        gpu = Gpu(1000, bytes_each)
        assert batches.run(gpu.squares, 8, bytes_each=bytes_each) == [i**2 for i in range(8)]
        assert gpu.sizes == sizes
    gpu = Gpu(3)
    batches.run(gpu.squares, 4)
    batches.run(gpu.squares, 4)
    assert gpu.sizes == [4, 2, 2, 2, 2]
