"""Read the tensors of a TorchScript archive, such as OpenAI's ``ViT-B-16.pt``, without its code.

An archive is a zip: a pickle of the module tree (``data.pkl``), the bytes of its tensors
(``data/0`` …), and code of the modules, which `torch.jit.load` would compile. Here the pickle is
read by an unpickler that knows tensors and empty stand-ins for modules and nothing else. Of the
code, only the lists of parameters and buffers are read, as text.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.clip.errors import ClipLoadError

_TYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
_MOST_TREE = 2**24  # bytes of the pickle, and of the text of all code
_MOST_MODULES = 100_000
_DEEPEST = 64
_DECLARED = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)
_CLASS = re.compile(r"^class (\w+)\(Module\):$", re.MULTILINE)


def is_torchscript(file: Path) -> bool:
    """Whether a file is a zip that holds TorchScript."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return False


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """The parameters and buffers of the module of an archive, as its ``state_dict()``.

    Raises:
        ClipLoadError: the archive is damaged, or names code where tensors belong.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if not (tensors := dict(_Archive(archive).tensors())):
                raise _Refused("it holds no tensor")
            return tensors
    except _Refused as error:
        raise ClipLoadError(
            f"{file}: refused, {error}; pass a file with tensors only, best as .safetensors"
        ) from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # unpicklers and zipfile raise anything on made-up files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ClipLoadError(
            f"{file}: is a damaged TorchScript archive ({reason}); fetch it again"
        ) from None


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """The archive holds what no exported model does."""


class _Module:
    """Stands for a module, of which the archive gives the attributes."""

    type_name = ""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise _Refused("the state of a module is no dictionary")
        self.attributes = state


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class _View:
    """A tensor before its bytes are read."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return type("_Module", (_Module,), {"type_name": f"{module}.{name}"})
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":  # lists, and values with the name of their type
            return _first
        raise _Refused(f"it names {module}.{name}, which is code and no tensor"[:200])

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _Refused("it refers to something else than a tensor's bytes")
        return _Storage(str(key), dtype)


def _view(storage: object, offset: int, size: Any, stride: Any, *_: object) -> _View:
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor has no bytes")
    return _View(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _first(value: object, *_: object) -> object:
    return value


class _Archive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        names = archive.namelist()
        self._root = next(n for n in names if n.endswith("/data.pkl")).removesuffix("data.pkl")
        self._storages: dict[_Storage, Tensor] = {}
        self._declared = dict(self._declarations(names))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        top = _Unpickler(io.BytesIO(self._text(f"{self._root}data.pkl"))).load()
        if not isinstance(top, _Module):
            raise _Refused("its data is no module")
        todo, count = [("", top)], 0
        while todo:
            prefix, module = todo.pop()
            count += 1
            if count > _MOST_MODULES or prefix.count(".") > _DEEPEST:
                raise _Refused("its modules are nested without end")
            declared = self._declared.get(module.type_name)
            for name, value in module.attributes.items():
                if isinstance(value, _Module):
                    todo.append((f"{prefix}{name}.", value))
                elif isinstance(value, _View) and (declared is None or name in declared):
                    yield f"{prefix}{name}", self._tensor(value)

    def _tensor(self, view: _View) -> Tensor:
        storage = self._storage(view.storage)
        steps = [(size - 1) * stride for size, stride in zip(view.size, view.stride, strict=True)]
        count = math.prod(view.size)
        last = view.offset + sum(steps)
        if min((view.offset, *view.size, *view.stride)) < 0 or (
            count and (last >= len(storage) or count > len(storage))
        ):
            raise _Refused("a tensor is larger than its bytes")
        return storage.as_strided(view.size, view.stride, view.offset)

    def _storage(self, storage: _Storage) -> Tensor:
        if storage not in self._storages:
            name = f"{self._root}data/{storage.key}"
            if self._archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise _Refused(f"its member {name[:60]!r} is compressed")
            content = bytearray(self._archive.read(name))
            self._storages[storage] = (
                torch.frombuffer(content, dtype=storage.dtype)
                if content
                else torch.empty(0, dtype=storage.dtype)
            )
        return self._storages[storage]

    def _declarations(self, names: list[str]) -> Iterator[tuple[str, frozenset[str]]]:
        """The parameters and buffers by the name of a class; other tensors are constants."""
        start, left = f"{self._root}code/", _MOST_TREE
        for path in names:
            if path.startswith(f"{start}__torch__") and path.endswith(".py"):
                text = self._text(path, left).decode(errors="replace")
                left -= len(text)
                module = path.removeprefix(start).removesuffix(".py").replace("/", ".")
                parts = _CLASS.split(text)[1:]
                for name, body in zip(parts[::2], parts[1::2], strict=True):
                    if lists := _DECLARED.findall(body):
                        declared = re.findall(r'"([^"]*)"', " ".join(lists))
                        yield f"{module}.{name}", frozenset(declared)

    def _text(self, name: str, most: int = _MOST_TREE) -> bytes:
        with self._archive.open(name) as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise _Refused(f"{name[:60]!r} is larger than that of any model")
        return content
