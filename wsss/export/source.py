"""The masks of a run, image by image: found in its folder, checked against its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from jaxtyping import UInt8

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.progress import track
from wsss.artifacts.shard import Shard
from wsss.compute.shards import part_of
from wsss.config.base import Split
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Manifest, Sample
from wsss.data.manifest_folder import MANIFEST, load
from wsss.export.errors import ExportError
from wsss.masks.samples import samples_of
from wsss.pipeline.run_folder import run_folder
from wsss.score.page.files import FILES, page_provenance, read_shown

Product = Literal["label", "train"]
"""``label``: every pixel has a label. ``train``: what is learned from, with 255 where unsure."""
_RESULTS = "results"
SPLITS: Final[tuple[Split, ...]] = ("train", "val")
_AGAIN = "run the pipeline to the masks first (snakemake --cores all)"


@dataclass(frozen=True)
class MaskOfImage:
    """The mask of an image."""

    sample: Sample
    labels: UInt8[np.ndarray, "height width"]
    """0 background, k class k - 1; in the product ``train`` also 255."""


@dataclass(frozen=True)
class MaskSource:
    """The masks of a run."""

    run: Path
    product: Product
    classes: ClassList
    samples: dict[Split, tuple[Sample, ...]]
    """The images that have masks, by split, in the order of the shards."""
    shards: dict[Split, tuple[Path, ...]]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(map(len, self.samples.values()))

    def masks(self, split: Split) -> Iterator[MaskOfImage]:
        """The masks of a split, one at a time, with progress on the screen.

        Raises:
            ArtifactError: a shard is missing or damaged.
        """
        masks = self._masks(split)
        yield from track(masks, total=len(self.samples[split]), description=f"Exporting {split}")

    def _masks(self, split: Split) -> Iterator[MaskOfImage]:
        samples = {sample.id: sample for sample in self.samples[split]}
        for path in self.shards[split]:
            with Shard(path, kind="masks") as shard:
                for image in shard.ids:
                    yield MaskOfImage(samples[image], shard.read(image).arrays[self.product])


def open_run(run: Path, product: Product, splits: Sequence[Split] = SPLITS) -> MaskSource:
    """Find the masks of a run and match them with its manifest; no mask is read yet.

    Masks below the run's folder that are older than its result page, and not shown there, are left
    out: the configuration was changed since, and the run no longer has them.

    Args:
        run: a folder of results, ``results/<name>``, or the folder that has ``results``.
        splits: of these, those that have masks.

    Raises:
        ExportError: the folder is no run, or has no masks, or not all of a split.
        ArtifactError: manifest or shards are damaged, or do not fit each other.
    """
    folder = _run_folder(run)
    root = _root(folder)
    manifest_dir, paths = _own_files(folder) or _files_of_page(folder, root) or (None, ())
    by_split: dict[str, list[Path]] = {}
    for path in paths:
        by_split.setdefault(path.parent.name, []).append(path)
    chosen = [split for split in SPLITS if split in by_split and split in splits]
    if manifest_dir is None or not chosen:
        of_splits = f" of {splits[0]}" if len(splits) == 1 else ""
        raise ExportError(
            f"{folder}: holds no masks{of_splits} (expected manifest/{MANIFEST} and "
            f"masks/<split>/<part>.h5); {_AGAIN}"
        )
    manifest, classes = load(manifest_dir)
    samples = {split: tuple(_samples(manifest, split, by_split[split], root)) for split in chosen}
    shards = {split: tuple(by_split[split]) for split in chosen}
    return MaskSource(folder, product, classes, samples, shards)


def manifest_of(run: Path) -> Path:
    """The folder of the manifest that a run uses.

    Args:
        run: as of `open_run`.

    Raises:
        ExportError: the folder is no run.
    """
    folder = _run_folder(run)
    if own := _own_manifest(folder):
        return own
    if of_page := _files_of_page(folder, _root(folder)):
        return of_page[0]
    raise ExportError(f"{folder}: holds no {MANIFEST} of a run; {_AGAIN}")


def _own_manifest(folder: Path) -> Path | None:
    manifests = (folder / name for name in ("noisy_tags", "manifest"))
    return next((path for path in manifests if (path / MANIFEST).is_file()), None)


def _run_folder(run: Path) -> Path:
    try:
        return run_folder(run, "masks")
    except ArtifactError as error:
        raise ExportError(str(error)) from None


def _root(folder: Path) -> Path:
    """Where the workflow ran, which paths of the run may start at: above ``results``."""
    absolute = folder.absolute()
    above = [path.parent for path in (absolute, *absolute.parents) if path.name == _RESULTS]
    return above[0] if above else Path.cwd()


def _own_files(folder: Path) -> tuple[Path, list[Path]] | None:
    """Manifest and mask shards below the run's own folder; None where it lacks them."""
    page = _Page.of(folder)
    paths = [path for split in SPLITS for path in _parts(folder / "masks" / split, page)]
    manifest = _own_manifest(folder)
    return (manifest, paths) if manifest and paths else None


@dataclass(frozen=True)
class _Page:
    """The masks that a run had when its result page was made."""

    time: float
    contents: frozenset[str]
    """Digests of their shards. Their paths may be those of another folder: runs are renamed."""

    @staticmethod
    def of(folder: Path) -> _Page | None:
        """That of a run; None where it has none that can be read."""
        try:
            paths = read_shown(folder).run.shards.get("masks", ())
            digests = page_provenance(folder).inputs
        except ArtifactError:
            return None
        contents = frozenset(digests[name] for path in paths if (name := str(path)) in digests)
        return _Page((folder / "page" / FILES).stat().st_mtime, contents)

    def is_of_run(self, paths: Sequence[Path]) -> bool:
        """Whether shards of a split are those of the page, or were made after it."""
        return any(path.stat().st_mtime > self.time or self._shows(path) for path in paths)

    def _shows(self, path: Path) -> bool:
        with Shard(path, kind="masks") as shard:
            return shard.content in self.contents


def _files_of_page(folder: Path, root: Path) -> tuple[Path, list[Path]] | None:
    """The same as the result page names them: of several runs, one may make them for all."""
    if not (folder / "page" / FILES).is_file():
        return None
    shown = read_shown(folder).run
    return root / shown.manifest, [root / path for path in shown.shards.get("masks", ())]


def _parts(folder: Path, page: _Page | None) -> list[Path]:
    """The shards of a split, in order; where the number of parts was changed, the newest set.

    None where the run had other masks, or none of this split, when its page was made.
    """
    sets: dict[int, dict[int, Path]] = {}
    for path in folder.glob("*-of-*.h5"):
        if part := part_of(path.stem):
            sets.setdefault(part[1], {})[part[0]] = path
    if not sets:
        return []
    count, parts = max(
        sets.items(), key=lambda item: max(p.stat().st_mtime for p in item[1].values())
    )
    if page is not None and not page.is_of_run(list(parts.values())):
        return []
    if missing := sorted(set(range(1, count + 1)) - parts.keys()):
        raise ExportError(
            f"{folder}: {len(missing)} of {count} parts are missing, e.g. "
            f"{missing[0]}-of-{count}.h5; {_AGAIN}"
        )
    return [parts[index] for index in sorted(parts)]


def _samples(manifest: Manifest, split: str, paths: Sequence[Path], root: Path) -> Iterator[Sample]:
    """The samples of the shards, their photos by absolute paths."""
    of_split = manifest.split(split)
    for path in paths:
        if not path.is_file():
            raise ArtifactError(f"{path}: no such shard; {_AGAIN}")
        with Shard(path, kind="masks") as shard:
            for sample in samples_of(of_split, shard):
                yield replace(sample, path=root / sample.path)
