"""Whether the data and other files that a configuration names are here, before a run needs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsss.config.base import AUTO
from wsss.config.model import Config
from wsss.config.paths import expand_path

_OF_OTHERS = {AUTO, "xml", "json", "masks"}
"""Values of ``data.tags`` that are no file."""
_LARGEST = 2**25
"""Bytes of a table that is read within a second or so."""


def missing_files(config: Config) -> Iterator[str]:
    """Warnings of data, tables of tags, corrected masks and the like that are not here.

    They are no errors: jobs may run elsewhere. Nor is a class that no photo has: photos of it may
    follow.
    """
    for key, path, kind in _missing(config):
        yield f"jobs that run here: {key}: {path}: no such {kind}"
    if fault := _proposals_fault(config):
        yield f"jobs that run here: {fault}"
    for name, hint in _unused_classes(config):
        yield f"data.classes: {name!r} is in no tag of {_table(config)}{hint}"


def _missing(config: Config) -> Iterator[tuple[str, Path, str]]:
    """Key, path and kind of what is not here."""
    data = config.data
    root = expand_path(data.root)
    if data.kind != "demo":
        if not root.is_dir():
            yield "data.root", root, "folder"
        table = _table(config)
        if table and root.is_dir() and not table.is_file():
            yield "data.tags", table, "table"
        if data.masks and not expand_path(data.masks).is_dir():
            yield "data.masks", expand_path(data.masks), "folder"
    corrected = config.retrain.corrected
    if config.retrain.enabled and corrected and not expand_path(corrected).is_dir():
        yield "retrain.corrected", expand_path(corrected), "folder"
    external = config.cams.external.path
    if config.cams.source == "external" and not expand_path(external).is_dir():
        yield "cams.external.path", expand_path(external), "folder"
    knowledge = config.cams.patch_text.tse.knowledge
    if knowledge and not expand_path(knowledge).is_file():
        yield "cams.patch_text.tse.knowledge", expand_path(knowledge), "file"


def _proposals_fault(config: Config) -> str:
    """Which images lack the mask proposals that a run needs; empty if none does.

    Images that are not here either, such as the demo's before its first run, do not count.
    """
    if config.masks.refine != "sam" or not config.cam_splits:
        return ""
    from wsss.data.datasets.registry import read_dataset
    from wsss.data.errors import DataError
    from wsss.masks.proposal_files import check_files

    try:
        images = read_dataset(config.data, config.variant).candidates
    except DataError:  # `wsss data check` says what is missing of the data set
        images = ()
    used = [i for i in images if i.split in config.cam_splits and not (i.problem or i.skipped)]
    try:
        check_files(expand_path(config.masks.proposals.path), used)
    except DataError as error:
        return f"masks.proposals.path: {error}"
    return ""


def _table(config: Config) -> Path | None:
    """The table of tags, here or not; None where tags come from annotations."""
    data, root = config.data, expand_path(config.data.root)
    if data.tags not in _OF_OTHERS:
        path = expand_path(data.tags)
        return path if path.is_file() else root / path
    return root / "tags.csv" if data.kind == "folder" else None


def _unused_classes(config: Config) -> Iterator[tuple[str, str]]:
    """Each of ``data.classes`` that no row of a small table has, and the nearest tag."""
    from wsss.data.datasets.classes import folder_classes, nearest
    from wsss.data.datasets.free_text import split_names
    from wsss.data.datasets.tag_table import read_table
    from wsss.data.datasets.tags import TagReader
    from wsss.data.errors import DataError

    data, table = config.data, _table(config)
    if data.kind != "folder" or not data.classes or table is None or not table.is_file():
        return
    if table.stat().st_size > _LARGEST:
        return
    try:
        reader = TagReader(folder_classes(data.classes))
        cells = {row.tags for row in read_table(table) if not row.problem}
        used = {index for cell in cells for index in reader.cell(cell).indices}
        tags = sorted({name for cell in cells for name in split_names(cell)})
    except DataError:  # `wsss data check` says what is wrong with it
        return
    for index, name in enumerate(data.classes):
        if index not in used:
            yield name, nearest(name, tags)
