"""Switches that are set and restored, and parts that multiply in bfloat16."""

import ast
import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wsss.artifacts.stage import STAGES
from wsss.compute.distributed import share_batch_norm
from wsss.compute.numerics import Numerics, in_force, resolved
from wsss.compute.precision import (
    _cuda_switches,
    autocast,
    autocast_calls,
    computing,
    on_device,
)
from wsss.compute.threads import ordered_map
from wsss.config.compute import ComputeConfig
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping

CPU = torch.device("cpu")


def _switches() -> list[Any]:
    backends: Any = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    return [*(part.fp32_precision for part in parts), backends.cudnn.benchmark]


def test_what_auto_means() -> None:
    assert [resolved("auto", kind) for kind in ("cpu", "cuda")] == ["float32", "tf32"]
    assert [resolved("tf32", kind) for kind in ("cpu", "cuda")] == ["float32", "tf32"]
    assert [resolved("bf16", kind) for kind in ("cpu", "cuda")] == ["bf16", "bf16"]
    assert resolved("float32", "cuda") == "float32"


def test_switches_are_set_and_restored() -> None:
    before = _switches()
    with _cuda_switches("tf32", fixed_sizes=True):
        assert _switches() == ["tf32", "tf32", "tf32", True]
        with _cuda_switches("ieee", fixed_sizes=False):
            assert _switches() == ["ieee", "ieee", "ieee", True]
    with pytest.raises(KeyError), _cuda_switches("tf32", fixed_sizes=True):
        raise KeyError
    assert _switches() == before


def test_blocks_of_threads_overlap_and_leave_the_switches_as_they_were() -> None:
    before = _switches()
    first, second = (_cuda_switches(products, fixed_sizes=False) for products in ("tf32", "ieee"))
    with ThreadPoolExecutor(1) as other:
        first.__enter__()
        other.submit(second.__enter__).result()
        assert _switches()[:3] == ["ieee"] * 3  # what one of them asks for
        first.__exit__(None, None, None)
        assert _switches()[:3] == ["ieee"] * 3
        other.submit(second.__exit__, None, None, None).result()
    assert _switches() == before


def test_a_thread_computes_as_it_says_and_its_workers_as_it_does() -> None:
    with ThreadPoolExecutor(1) as other, computing("cpu", "bf16"):
        assert other.submit(in_force).result() == Numerics()
        precisions = ordered_map(lambda _: in_force().precision, range(2), threads=2)
        assert list(precisions) == ["bf16", "bf16"]


def test_a_block_computes_as_it_says() -> None:
    assert in_force() == Numerics("cpu", "float32")
    with computing("cpu", "bf16"), autocast(CPU):
        assert in_force() == Numerics("cpu", "bf16")
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert in_force() == Numerics("cpu", "float32")
    with computing("cpu", "auto"), autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_stage_computes_as_its_configuration_says() -> None:
    @on_device(when=lambda values: values["encodes"])
    def stage(*, encodes: bool, compute: ComputeConfig) -> Numerics:
        return in_force()

    compute = ComputeConfig(device="cpu", precision="bf16")
    assert stage(encodes=True, compute=compute).precision == "bf16"
    assert stage(encodes=False, compute=compute).precision == "float32"


def test_calls_of_a_part_multiply_in_bfloat16_and_return_float32() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.inside: list[torch.dtype] = []

        def forward(self, images: torch.Tensor) -> dict[str, list[torch.Tensor]]:
            features = self.first(images)
            self.inside.append(features.dtype)
            return {"features": [self.norm(features)]}

    torch.manual_seed(0)
    images, plain = torch.rand(2, 3, 5, 5), Parts()
    (expected,) = plain(images)["features"]
    with computing("cpu", "bf16"):
        autocast_calls(plain, CPU)
    share_batch_norm(plain)  # another class: a call goes to what it is by then
    (actual,) = plain(images)["features"]
    assert plain.inside == [torch.float32, torch.bfloat16]
    assert actual.dtype == plain.first(images).dtype == torch.float32
    assert not torch.equal(actual, expected)
    torch.testing.assert_close(actual, expected, atol=0.05, rtol=0.05)
    actual.sum().backward()
    assert plain.first.weight.grad is not None
    assert plain.first.weight.grad.dtype == torch.float32


def _says_on_device(module: str) -> bool:
    """Whether a module decorates one of its functions with `on_device`."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    functions = [
        node
        for node in ast.walk(ast.parse(Path(spec.origin).read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    decorators = [decorator for function in functions for decorator in function.decorator_list]
    return any(
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "on_device"
        for call in decorators
    )


def test_another_precision_reruns_what_computes_on_a_device() -> None:
    def watched(precision: str) -> set[str]:
        config = from_mapping({"compute": {"precision": precision}})
        of_stage = {name: stage.watched(config) for name, stage in STAGES.items()}
        return {name for name, values in of_stage.items() if "compute.precision" in values}

    assert watched("auto") == set()  # it depends on the machine
    computing = {name for name, s in STAGES.items() if any(map(_says_on_device, s.modules))}
    assert {"cams", "refine_predict", "retrain"} <= computing
    assert watched("bf16") == computing


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(ConfigError, match=r"compute\.precision: .*'bf16'.* \(found 'fp16'\)"):
        from_mapping({"compute": {"precision": "fp16"}})


def test_the_configuration_is_read_without_torch() -> None:
    code = "import sys, wsss.artifacts.stage, wsss.config.load; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
