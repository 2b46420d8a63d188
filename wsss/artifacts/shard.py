"""HDF5 shards: named arrays of a set of images, checked item by item.

One writer a file, never appended to: written under a temporary name, closed, reopened, verified
and renamed. Each item carries the digest of its arrays, which every read checks, and a key that
says from what it was made, so that a later run can take over what has not changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from wsss.artifacts.atomic import atomic_path
from wsss.artifacts.digest import digest_arrays, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance

_FORMAT = 1


@dataclass(frozen=True)
class Item:
    """What a shard holds of one image."""

    id: str
    arrays: Mapping[str, np.ndarray]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """JSON-like facts, for instance class ids, grid size and image size."""
    key: str = ""
    """Digest of what the item was made from; equal keys mean equal content."""


class ShardWriter:
    """Write a shard; use as a context manager.

    Items may come in any order: they are stored in the order of ``ids``, so that the content of the
    file does not depend on how the work was batched.

    Args:
        path: the final file.
        kind: what the shard holds (``cams``, ``masks`` …); readers ask for it.
        ids: the images that will be written, in order; leaving one out is an error.
        provenance: what the shard was made of.
    """

    def __init__(
        self, path: Path, *, kind: str, ids: Sequence[str], provenance: Provenance
    ) -> None:
        if len(set(ids)) != len(ids):
            raise ValueError(f"{path}: duplicate ids in a shard")
        self.path = path
        self._index = {image: number for number, image in enumerate(ids)}
        self._pending = set(ids)
        self._kind = kind
        self._provenance = provenance
        self._digests: dict[str, str] = {}

    def __enter__(self) -> ShardWriter:
        self._atomic = atomic_path(self.path)
        self._temporary = self._atomic.__enter__()
        self._file = h5py.File(self._temporary, "w", libver=("v110", "v110"))
        self._items = self._file.create_group("items")
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
        digest = digest_arrays(item.arrays)
        for name in sorted(item.arrays):
            array = np.ascontiguousarray(item.arrays[name])
            packed = (
                {"compression": "gzip", "compression_opts": 1, "shuffle": True}
                if array.size > 1024
                else {}
            )
            group.create_dataset(name, data=array, track_times=False, **packed)
        group.attrs["id"] = item.id
        group.attrs["attrs"] = json.dumps(dict(item.attrs), sort_keys=True)
        group.attrs["key"] = item.key
        group.attrs["digest"] = digest_json(
            [digest, json.dumps(dict(item.attrs), sort_keys=True), item.id, item.key]
        )
        self._digests[item.id] = digest_json([digest, dict(item.attrs), item.id])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._file.close()
            self._atomic.__exit__(kind, error, trace)
            return
        try:
            if self._pending:
                raise ArtifactError(
                    f"{self.path}: {len(self._pending)} images were not written, e.g. "
                    f"{min(self._pending)!r}"
                )
            self._file.attrs["format"] = _FORMAT
            self._file.attrs["kind"] = self._kind
            self._file.attrs["count"] = len(self._index)
            self._file.attrs["provenance"] = self._provenance.model_dump_json()
            self._file.attrs["content"] = digest_json(
                [self._digests[image] for image in self._index]
            )
            self._file.close()
            with Shard(self._temporary, kind=self._kind) as written:
                for _ in written:
                    pass
        except BaseException as failure:
            self._file.close()
            self._atomic.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._atomic.__exit__(None, None, None)


class Shard:
    """Read a shard; use as a context manager or call `close`.

    Args:
        path: the file.
        kind: what it must hold; None accepts any.

    Raises:
        ArtifactError: the file is missing, no complete shard, or of another kind.
    """

    def __init__(self, path: Path, *, kind: str | None = None) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError:
            raise ArtifactError(f"{path}: no such shard; run the stage that makes it") from None
        except OSError as error:
            raise ArtifactError(
                f"{path}: is damaged or no HDF5 file ({error}); delete it and rerun the stage"
            ) from None
        root = self._file.attrs
        if "format" not in root or "content" not in root:
            self._file.close()
            raise ArtifactError(f"{path}: is not a finished shard; delete it and rerun the stage")
        if kind is not None and root["kind"] != kind:
            found = root["kind"]
            self._file.close()
            raise ArtifactError(
                f"{path}: holds {found!r}, expected {kind!r}; pass the file of the right stage"
            )
        self.kind = str(root["kind"])
        self.content = str(root["content"])
        """Digest of ids, arrays and attributes; equal content, equal digest."""
        self.provenance = Provenance.model_validate_json(str(root["provenance"]))
        self._groups = {str(group.attrs["id"]): group for group in self._file["items"].values()}
        if len(self._groups) != int(root["count"]):
            self._file.close()
            raise ArtifactError(
                f"{path}: has {len(self._groups)} items, expected {root['count']}; delete it "
                f"and rerun"
            )

    @property
    def ids(self) -> list[str]:
        """The images of the shard, in order."""
        return list(self._groups)

    def __contains__(self, image: object) -> bool:
        return image in self._groups

    def __len__(self) -> int:
        return len(self._groups)

    def key(self, image: str) -> str:
        """The key of one item, without reading its arrays."""
        return str(self._groups[image].attrs["key"])

    def attrs(self, image: str) -> dict[str, Any]:
        """The attributes of one item, without reading its arrays."""
        loaded: dict[str, Any] = json.loads(str(self._groups[image].attrs["attrs"]))
        return loaded

    def read(self, image: str) -> Item:
        """Read one item and check its digest.

        Raises:
            ArtifactError: the image is not in the shard, or its bytes are damaged.
        """
        group = self._groups.get(image)
        if group is None:
            raise ArtifactError(f"{self.path}: has no image {image!r}")
        try:
            arrays = {name: dataset[()] for name, dataset in group.items()}
        except OSError as error:
            raise ArtifactError(
                f"{self.path}: {image!r} is damaged ({error}); delete the file and rerun"
            ) from None
        attrs, key = str(group.attrs["attrs"]), str(group.attrs["key"])
        if digest_json([digest_arrays(arrays), attrs, image, key]) != group.attrs["digest"]:
            raise ArtifactError(
                f"{self.path}: {image!r} does not match its digest; delete the file and rerun "
                f"the stage"
            )
        return Item(image, arrays, json.loads(attrs), key)

    def __iter__(self) -> Iterator[Item]:
        return (self.read(image) for image in self._groups)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
