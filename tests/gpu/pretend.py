"""A GPU that is only pretended: tensors are computed on the CPU but remember where they would lie.

Inside ``with PretendGpu() as gpu`` a tensor sent to ``cuda`` says that it is there, and what a real
GPU would refuse (operands here and there, ``.numpy()`` of what lies there) raises. Waits of the
host, uploads, downloads and launches are counted by the line of the package that asked for them. A
tensor lies where its storage does, so views, in-place results and what autograd saves need no
bookkeeping.

A wait is what ``torch.cuda.set_sync_debug_mode`` reports: a number that is read, an operation whose
result has a size that the device decides, and a copy in either direction that is not
``non_blocking``. A launch is an operation that computes something there; torch may need several
kernels for it.

Not seen: kernels that CUDA lacks or rounds differently, threads other than the caller's, C++ that
asks for the device itself (DataParallel, NCCL), memory.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import wsss
from wsss.labels.lattice_crf import clear_cache

CUDA = torch.device("cuda", 0)
_PACKAGE = os.path.dirname(wsss.__file__) + os.sep  # a clone may lie in a folder wsss, too
_ops = torch.ops.aten
_INDEX = {_ops.index.Tensor, _ops.index_put.default, _ops.index_put_.default}
_SCALARS = _INDEX | {
    _ops.masked_fill.Tensor, _ops.masked_fill_.Tensor, _ops.where.self, _ops.fill_.Tensor,
}  # fmt: skip
_COPIES = {_ops.copy_.default, _ops._foreach_copy_.default}
_WAITS = {
    _ops._local_scalar_dense.default, _ops.nonzero.default, _ops.masked_select.default,
    _ops.bincount.default, _ops._unique2.default, _ops.equal.default, _ops.repeat_interleave.Tensor,
}  # fmt: skip
_FREE = {
    _ops.empty_like.default, _ops.new_empty.default, _ops.empty.memory_format,
    _ops._unsafe_view.default,
}  # fmt: skip
"""They reserve or reshape memory, and launch nothing."""
_FILLS = {
    _ops.new_zeros.default, _ops.new_ones.default, _ops.new_full.default, _ops.zeros_like.default,
    _ops.ones_like.default, _ops.full_like.default,
}  # fmt: skip
"""They take the kind or the size of a tensor, and read none of its numbers."""
_ATTENTION = {
    _ops._scaled_dot_product_flash_attention_for_cpu: _ops._scaled_dot_product_flash_attention,
    _ops._scaled_dot_product_flash_attention_for_cpu_backward:
        _ops._scaled_dot_product_flash_attention_backward,
}  # fmt: skip
"""What a GPU computes instead of a CPU's; torch counts the operations of these alone."""
_ASK = {"__get__", "numpy", "__array__", "tolist", "cpu", "cuda", "to", "new_tensor"}
"""Names of what asks for a device, or depends on it."""
_FROM_HOST = ("tensor", "as_tensor", "asarray", "new_tensor")
_CUDA = {
    "is_available": True, "device_count": 1, "current_device": 0, "set_device": None,
    "get_device_name": "pretended", "max_memory_allocated": 0, "synchronize": None,
    "reset_peak_memory_stats": None,
}  # fmt: skip


class MixedDevicesError(RuntimeError):
    """Operands of one operation lie on different devices."""


class Work(NamedTuple):
    """What one launch computes, or a wait alone."""

    flops: int
    """Operations of products and convolutions, a multiplication and an addition counted as two."""
    bytes: int
    """Of the operands that are read, and of results; 0 of a wait alone."""
    waits: bool
    """Whether the host waits until the GPU is done."""


class PretendGpu:
    """The modes and what they count, keys ``file:line`` below ``wsss/``."""

    def __init__(self) -> None:
        self.waits, self.uploads, self.downloads = Counter[str](), Counter[str](), Counter[str]()
        self.launches = Counter[str]()
        self.work: list[Work] = []
        self._there: dict[int, StorageWeakRef] = {}  # weak: an address is not given away meanwhile

    def clear(self) -> None:
        """Count anew."""
        for counter in (self.waits, self.uploads, self.downloads, self.launches):
            counter.clear()
        self.work.clear()

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor would lie on the GPU."""
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()._cdata in self._there

    def put(self, tensor: Tensor, there: bool) -> None:
        """Note where a tensor lies."""
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
        self._there.pop(storage._cdata, None)
        if there:
            self._there[storage._cdata] = StorageWeakRef(storage)
        if len(self._there) > 20_000:
            self._there = {key: ref for key, ref in self._there.items() if not ref.expired()}

    def copied(self, there: bool, blocking: bool) -> None:
        """Count a copy to the GPU or from it."""
        line = self.line()
        (self.uploads if there else self.downloads)[line] += 1
        self.waits[line] += blocking
        if blocking:
            self.work.append(Work(0, 0, waits=True))

    def line(self) -> str:
        """Where the package asked for what is being done."""
        frame: Any = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
            frame = frame.f_back
        where = frame and f"{frame.f_code.co_filename.removeprefix(_PACKAGE)}:{frame.f_lineno}"
        return where or "elsewhere"

    def __enter__(self) -> PretendGpu:
        clear_cache()  # lattices that are held lie in the memory of another GPU
        self._stack = ExitStack()
        self._stack.callback(clear_cache)
        for name, value in _CUDA.items():
            answer = mock.patch.object(torch.cuda, name, lambda *_, value=value, **__: value)
            self._stack.enter_context(answer)
        for name, value in {"torch_has_cuda": True, "visible_gpus": []}.items():
            answer = mock.patch(f"wsss.compute.device.{name}", lambda value=value: value)
            self._stack.enter_context(answer)
        # No GPU is here that could lock pages; threads other than the caller's ask for it.
        pin = mock.patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor)
        self._stack.enter_context(pin)
        self._stack.enter_context(_Operations(self))
        self._stack.enter_context(_Calls(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested values of an operation."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


def _size(values: Any) -> int:
    """Bytes of all tensors in nested values."""
    return sum(t.numel() * t.element_size() for t in _tensors(values))


class _Operations(TorchDispatchMode):
    """Every operation, those of the backward pass and of the optimiser as well."""

    def __init__(self, gpu: PretendGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs = self.gpu, kwargs or {}
        operands = list(_tensors((args, kwargs)))
        here = [t for t in operands if not gpu.holds(t)]
        if len(here) == len(operands):  # so are results: no storage has the address of another one
            return func(*args, **kwargs)
        launches, waits = self._check(func, args, kwargs, here)
        result = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if launches:
                packet = _ATTENTION.get(func.overloadpacket, func.overloadpacket)
                count = flop_registry.get(packet, lambda *_, **__: 0)
                flops = count(*args, **kwargs, out_val=result)
                read = [t for t in operands if t is not kwargs.get("out")]
                size = _size(result if func in _FILLS else (read, result))
                gpu.work.append(Work(flops, size, waits))
            storages = {t.untyped_storage()._cdata for t in operands}
            for output in _tensors(result):
                if output.untyped_storage()._cdata not in storages:
                    gpu.put(output, there=True)
        return result

    def _check(self, func: Any, args: Any, kwargs: Any, here: list[Tensor]) -> tuple[bool, bool]:
        """Count; whether the operation launches something, and whether it then waits for it."""
        gpu, line = self.gpu, self.gpu.line()
        with torch._C.DisableTorchFunction():
            first = bool(args) and isinstance(args[0], Tensor) and gpu.holds(args[0])
            if func in _COPIES and here:
                asynchronous = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
                gpu.copied(first, not asynchronous)
                return False, False
            if func in _INDEX and first:  # indices may lie here; of other operands scalars alone
                indices = [i for i in args[1] if i is not None and not gpu.holds(i)]
                for _ in indices:
                    gpu.copied(there=True, blocking=True)
                here = [t for t in args[2:3] if not gpu.holds(t)]
            if func in _SCALARS or torch.Tag.pointwise in func.tags or "_foreach_" in func.name():
                here = [t for t in here if t.dim()]
            masks = func in _INDEX and any(i is not None and i.dtype == torch.bool for i in args[1])
            waits = func in _WAITS or masks
            gpu.waits[line] += waits
            launches = not func.is_view and func not in _FREE
            gpu.launches[line] += launches
            if here:
                shapes = ", ".join(str(tuple(t.shape)) for t in here)
                raise MixedDevicesError(f"{func.name()} at {line}: on the GPU, but {shapes} is not")
        return launches, waits


class _Move(torch.autograd.Function):
    """A copy in the other memory, with its gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, gpu: PretendGpu, there: bool) -> Tensor:
        ctx.gpu, ctx.there, moved = gpu, there, tensor.detach().clone()
        gpu.put(moved, there)
        return moved

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        moved = gradients[0].clone()
        ctx.gpu.put(moved, not ctx.there)
        return moved, None, None


class _Calls(TorchFunctionMode):
    """What names a device, or asks for one."""

    def __init__(self, gpu: PretendGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, name = self.gpu, getattr(func, "__name__", "")
        if name not in _ASK and "device" not in (kwargs or {}):
            return func(*args, **kwargs or {})
        kwargs = dict(kwargs or {})
        there = bool(args) and isinstance(args[0], Tensor) and gpu.holds(args[0])
        if name == "__get__" and there:
            answers = {"device": CUDA, "is_cuda": True, "is_cpu": False}
            return answers.get(func.__self__.__name__, func(*args, **kwargs))
        if name in ("numpy", "__array__") and there:
            raise TypeError(f"{gpu.line()}: can't convert a cuda:0 tensor to numpy")
        if name == "tolist" and there:
            gpu.copied(there=False, blocking=True)
            return func(*args, **kwargs)
        if name in ("cpu", "cuda") and args:
            return self._moved(args[0], name == "cuda", kwargs.get("non_blocking", False))
        if func is Tensor.to:
            return self._to(args[0], args[1:], kwargs)
        if name == "new_tensor":
            kwargs.setdefault("device", CUDA if there else "cpu")
        if (device := kwargs.get("device")) is None:
            return func(*args, **kwargs)
        result = func(*args, **kwargs | {"device": "cpu"})
        if torch.device(device).type == "cuda":
            self._created(name, result)
        return result

    def _created(self, name: str, result: Any) -> None:
        """Count what was created there, and note that it lies there."""
        gpu = self.gpu
        for output in _tensors(result):
            gpu.put(output, there=True)
        if name in _FROM_HOST:
            gpu.copied(there=True, blocking=True)
        elif "empty" not in name:
            gpu.launches[gpu.line()] += 1
            gpu.work.append(Work(0, _size(result), waits=False))

    def _to(self, tensor: Tensor, rest: Any, kwargs: Any) -> Tensor:
        if rest and isinstance(rest[0], Tensor):
            there, dtype, asynchronous = self.gpu.holds(rest[0]), rest[0].dtype, False
        else:
            device, dtype, asynchronous, *_ = torch._C._nn._parse_to(*rest, **kwargs)
            there = self.gpu.holds(tensor) if device is None else device.type == "cuda"
        moved = self._moved(tensor, there, asynchronous)
        with torch._C.DisableTorchFunction():
            return moved if dtype is None else moved.to(dtype)

    def _moved(self, tensor: Tensor, there: bool, asynchronous: bool) -> Tensor:
        if self.gpu.holds(tensor) == there:
            return tensor
        self.gpu.copied(there, not asynchronous)
        moved: Tensor = _Move.apply(tensor, self.gpu, there)
        return moved
