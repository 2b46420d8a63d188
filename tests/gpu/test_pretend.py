"""The pretended GPU refuses what a GPU refuses, and counts what it would do."""

import pytest
import torch

from tests.gpu.pretend import MixedDevicesError, PretendGpu


def test_operands_must_lie_together() -> None:
    with PretendGpu():
        there, here = torch.zeros(3, device="cuda"), torch.ones(3)
        with pytest.raises(MixedDevicesError):
            there + here
        with pytest.raises(MixedDevicesError):
            here[torch.tensor([0], device="cuda")]
        with pytest.raises(TypeError, match="can't convert"):
            there.numpy()
        assert (there + 1 + torch.tensor(2.0)).device.type == "cuda"  # a scalar may lie anywhere
        assert there[torch.tensor([0])].is_cuda
        assert not there.cpu().is_cuda


def test_gradients_lie_where_their_tensors_do() -> None:
    with PretendGpu():
        weight = torch.ones(3, requires_grad=True)
        (weight.to("cuda") ** 2).sum().backward()
        assert weight.grad is not None
        assert weight.grad.device.type == "cpu"
        torch.testing.assert_close(weight.grad, torch.full((3,), 2.0))


def test_waits_are_what_torch_would_report() -> None:
    with PretendGpu() as gpu:
        there = torch.arange(3.0, device="cuda")
        here = torch.ones(3)
        for action, waits in {
            lambda: there + 1: 0,
            lambda: here.to("cuda", non_blocking=True): 0,
            lambda: here.to("cuda"): 1,
            lambda: torch.tensor([1.0], device="cuda"): 1,
            lambda: there.cpu(): 1,
            lambda: there.sum().item(): 1,
            lambda: there.tolist(): 1,
            lambda: there[there > 1]: 1,
            lambda: there[torch.tensor([1])]: 1,
            lambda: here.sum().item(): 0,
        }.items():
            gpu.clear()
            action()
            assert gpu.waits.total() == waits


def test_launches_are_operations_there() -> None:
    with PretendGpu() as gpu:
        there = torch.zeros(2, 3, device="cuda")
        assert gpu.launches.total() == 1
        (there.T @ there).relu()
        there.new_empty(4)
        torch.ones(3) + 1
        assert gpu.launches.total() == 3


def test_work_is_what_launches_compute_and_where_the_host_waits() -> None:
    with PretendGpu() as gpu:
        there = torch.zeros(2, 3, device="cuda")
        (there.T @ there).sum().item()
        there.tolist()
        there.new_zeros(5)
        ones = torch.ones_like(there)
        torch.mul(there, 2, out=ones)
    # Zeros; 3 x 2 times 2 x 3 numbers to 3 x 3; their sum; the number that is read; a list; zeros,
    # ones; 6 numbers into the memory of 6 others
    assert [tuple(work) for work in gpu.work] == [
        (0, 4 * 6, False),
        (2 * 3 * 2 * 3, 4 * (6 + 6 + 9), False),
        (0, 4 * (9 + 1), False),
        (0, 4, True),
        (0, 0, True),
        (0, 4 * 5, False),
        (0, 4 * 6, False),
        (0, 4 * (6 + 6), False),
    ]


def test_attention_counts_as_the_products_of_which_it_consists() -> None:
    tokens = torch.zeros(1, 2, 5, 8, requires_grad=True)
    with PretendGpu() as gpu:
        there = tokens.to("cuda")
        torch.nn.functional.scaled_dot_product_attention(there, there, there).sum().backward()
    # Two heads; 5 tokens times 5, and the 5 x 5 shares times 5 values; five such products back.
    assert sum(work.flops for work in gpu.work) == (2 + 5) * 2 * (2 * 5 * 5 * 8)
