"""HDF5 shards: named arrays of a set of images, checked item by item.

One writer a file, never appended to: written under a temporary name, closed, reopened, verified
and renamed. An index lists each item's id, key, attributes and arrays, with the digest of the
latter. Opening a file reads and checks the index, reading an item checks its arrays: every byte
that is used is checked, and nothing is read to check it that is not used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.code_digest import FORMAT
from wsss.artifacts.digest import digest_arrays, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.failsafe_file import FailsafeFile
from wsss.artifacts.hdf5 import Hdf5File, read_array, write_array
from wsss.artifacts.provenance import Provenance
from wsss.errors import raise_unless_about

_FIELDS = {"id": str, "key": str, "attrs": dict, "arrays": dict, "digest": str}
"""What the index says of an item."""
# Arrays of numbers, as HDF5 reads them: damaged attributes of texts can keep it busy for ever.
_ABOUT, _INDEX = "about", "index"
_AGAIN = "if a stage wrote it, delete it and rerun that stage"
# What h5py and the parsing of its values raise at damaged bytes.
_DAMAGE = (
    OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError,
    MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """What a shard holds of one image."""

    id: str
    arrays: Mapping[str, np.ndarray]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """JSON-like facts, for instance class ids, grid size and image size."""
    key: str = ""
    """Digest of what the item was made from; equal keys mean equal content, to be taken over."""


class ShardWriter:
    """Write a shard; use as a context manager.

    Items may come in any order: they are stored in the order of ``ids``, so that the content of the
    file does not depend on how the work was batched.

    Args:
        kind: what the shard holds (``cams``, ``masks`` …); readers ask for it.
        ids: the images that will be written, in order; leaving one out is an error.
        provenance: what the shard was made of.

    Raises:
        WriteError: there is no space or no right to write.
    """

    def __init__(
        self, path: Path, *, kind: str, ids: Sequence[str], provenance: Provenance
    ) -> None:
        if len(set(ids)) != len(ids):
            raise ValueError(f"{path}: duplicate ids in a shard")
        self.path = path
        self._index = {image: index for index, image in enumerate(ids)}
        self._pending = set(ids)
        self._kind = kind
        self._provenance = provenance
        self._entries: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> ShardWriter:
        self._atomic = atomic_path(self.path)
        self._temporary = self._atomic.__enter__()
        try:
            self._sink = FailsafeFile(self._temporary)
            self._file = h5py.File(self._sink, "w", libver=("v110", "v110"))
            self._items = self._file.create_group("items")
        except BaseException as failure:
            self._abandon(failure)
            raise
        return self

    def add(self, item: Item) -> None:
        """Store one item.

        Raises:
            ValueError: the id is not among the shard's ids or was written already.
        """
        if item.id not in self._pending:
            raise ValueError(
                f"{self.path}: {item.id!r} is not one of this shard's ids, or came twice"
            )
        self._pending.remove(item.id)
        group = self._items.create_group(f"{self._index[item.id]:07d}")
        group.attrs["id"] = item.id  # for whoever looks into the file with other tools
        for name in sorted(item.arrays):
            write_array(group, name, item.arrays[name])
        self._sink.check()
        self._entries[item.id] = {
            "id": item.id,
            "key": item.key,
            "attrs": dict(item.attrs),
            "arrays": {
                name: [array.dtype.str, list(array.shape)] for name, array in item.arrays.items()
            },
            "digest": digest_arrays(item.arrays),
        }

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._abandon(error)
            return
        try:
            if self._pending:
                raise ArtifactError(
                    f"{self.path}: {len(self._pending)} images were not written, e.g. "
                    f"{min(self._pending)!r}"
                )
            self._finish()
            self._close()
            with Shard(self._temporary, kind=self._kind) as written:
                for _ in written:
                    pass
        except BaseException as failure:
            self._abandon(failure)
            raise
        self._atomic.__exit__(None, None, None)

    def _finish(self) -> None:
        """Write what says that the shard is complete."""
        entries = [self._entries[image] for image in self._index]
        index = "\n".join(json.dumps(entry, sort_keys=True) for entry in entries).encode()
        write_array(self._file, _INDEX, np.frombuffer(index, np.uint8))
        root = {
            "format": FORMAT,
            "kind": self._kind,
            "count": len(entries),
            "provenance": self._provenance.model_dump_json(),
            "content": digest_json(
                [digest_json([e["digest"], e["attrs"], e["id"]]) for e in entries]
            ),
        }
        about = root | {"checksum": digest_json([root, index.decode()])}
        write_array(self._file, _ABOUT, np.frombuffer(json.dumps(about).encode(), np.uint8))

    def _close(self) -> None:
        self._file.close()
        self._sink.close()
        self._sink.check()

    def _abandon(self, failure: BaseException) -> None:
        """Leave nothing; raises what the failure means, if that is a full disk or the like."""
        with suppress(*_DAMAGE):
            self._close()
        self._atomic.__exit__(type(failure), failure, failure.__traceback__)


class Shard:
    """Read a shard; use as a context manager or call `close`.

    Any number of shards may be in use at once: see `Hdf5File`.

    Args:
        kind: what it must hold; None accepts any.

    Raises:
        ArtifactError: the file is missing, damaged, no complete shard, or of another kind.
        ReadError: it cannot be read at present.
    """

    def __init__(self, path: Path | str, *, kind: str | None = None) -> None:
        self.path = path = Path(path)
        self._file = Hdf5File(path)
        try:
            with self._file.opened() as file:
                root = self._open(file)
        except FileNotFoundError:
            raise ArtifactError(f"{path}: no such shard; run the stage that makes it") from None
        except ArtifactError:
            raise
        except _DAMAGE as error:
            raise_unless_about(path, error)
            raise ArtifactError(f"{path}: is damaged or no shard ({error!r}); {_AGAIN}") from None
        if kind not in (None, root["kind"]):
            raise ArtifactError(
                f"{path}: holds {root['kind']!r}, expected {kind!r}; pass that stage's file"
            )
        self.kind = str(root["kind"])
        self.content = str(root["content"])
        """Digest of ids, arrays and attributes; equal content, equal digest."""

    def _open(self, file: h5py.File) -> dict[str, Any]:
        """Read and check all but the arrays."""
        if _ABOUT not in file:
            raise ArtifactError(f"{self.path}: is not a finished shard of this version; {_AGAIN}")
        about = json.loads(read_array(file, _ABOUT).tobytes())
        if about["format"] != FORMAT:
            raise ArtifactError(
                f"{self.path}: has the format {about['format']}, this version reads {FORMAT}; "
                f"{_AGAIN}"
            )
        checksum = about.pop("checksum")
        root: dict[str, Any] = about
        index = read_array(file, _INDEX).tobytes().decode()
        if digest_json([root, index]) != checksum:
            raise ArtifactError(
                f"{self.path}: is damaged: its index does not match its digest; {_AGAIN}"
            )
        self.provenance = Provenance.model_validate_json(root["provenance"])
        self._positions: dict[str, int] = {}
        # Unparsed lines: a tenth of the memory, which counts over all images of COCO.
        self._lines = index.split("\n") if index else []
        for position, line in enumerate(self._lines):
            entry = json.loads(line)
            if not all(isinstance(entry[name], kind) for name, kind in _FIELDS.items()):
                raise ValueError(f"entry {position} of its index is not ours")
            self._positions[entry["id"]] = position
        return root

    @property
    def ids(self) -> list[str]:
        """The images of the shard, in order."""
        return list(self._positions)

    def __contains__(self, image: object) -> bool:
        return image in self._positions

    def __len__(self) -> int:
        return len(self._positions)

    def key(self, image: str) -> str:
        """The key of one item, without reading its arrays."""
        return str(self._entry(image)["key"])

    def attrs(self, image: str) -> dict[str, Any]:
        """The attributes of one item, without reading its arrays."""
        return dict(self._entry(image)["attrs"])

    def digest(self, image: str) -> str:
        """Digest of one item's arrays and attributes, none of which is read."""
        return digest_json([self._entry(image)[name] for name in ("digest", "attrs")])

    def read(self, image: str) -> Item:
        """Read one item and check its digest.

        Raises:
            ArtifactError: the image is not in the shard, or its bytes are damaged.
            ReadError: the file cannot be read at present.
        """
        entry = self._entry(image)
        try:
            name_path = f"items/{self._positions[image]:07d}"
            with self._file.opened() as file:
                arrays = {
                    name: read_array(file, f"{name_path}/{name}", entry["arrays"][name])
                    for name in entry["arrays"]
                }
        except _DAMAGE as error:
            raise_unless_about(self.path, error)
            raise ArtifactError(
                f"{self.path}: {image!r} is damaged ({error!r}); {_AGAIN}"
            ) from None
        if digest_arrays(arrays) != entry["digest"]:
            raise ArtifactError(
                f"{self.path}: {image!r} is damaged: it does not match its digest; {_AGAIN}"
            )
        return Item(image, arrays, dict(entry["attrs"]), str(entry["key"]))

    def _entry(self, image: str) -> dict[str, Any]:
        index = self._positions.get(image)
        if index is None:
            raise ArtifactError(f"{self.path}: has no image {image!r}")
        entry: dict[str, Any] = json.loads(self._lines[index])
        return entry

    def __iter__(self) -> Iterator[Item]:
        return (self.read(image) for image in self._positions)

    def close(self) -> None:
        """Close the file."""
        with suppress(*_DAMAGE):  # nothing was written, so nothing can be lost
            self._file.close()

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
