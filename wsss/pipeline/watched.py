"""Parameters of the workflow's rules that stand for files which a stage reads and no rule makes.

Their values change with the content of these files, so a changed file reruns the stage whether it
is newer than the outputs or not.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import WriteError
from wsss.artifacts.watch import Stamp, digest_listing, stamp, state
from wsss.config.data import DataConfig
from wsss.config.model import Config
from wsss.config.paths import RESULTS, expand_path
from wsss.data.datasets.inputs import input_stamps
from wsss.data.ingest.stage import only_test
from wsss.data.manifest_folder import RECORD

DEMO = "drawn by a rule"
_listing = functools.cache(digest_listing)  # the engine asks for each job
_DIGESTS = RESULTS / "cache" / "digests.json"
_BYTES_WORTH_REMEMBERING = 64 * 2**20  # a tenth of a second


def data_state(data: DataConfig, folder: str, test_list: str = "", *, remember: bool = True) -> str:
    """The state of the images, lists and tags that ingest reads; that of the demo never changes.

    Args:
        remember: see `wsss.artifacts.watch.state`.
    """
    if data.kind == "demo":
        return DEMO
    data = only_test(data, test_list) if test_list else data
    return state(input_stamps(data), Path(folder, RECORD), remember=remember)


def seeds_state(config: Config) -> str:
    """The state of imported CAMs or seeds, each file by size and time; empty without any."""
    external = config.cams.external
    if config.cams.source != "external":
        return ""
    return _listing(expand_path(external.path), f".{external.layout}")


def proposals_state(config: Config) -> str:
    """The state of mask proposals, each file by size and time; empty without any."""
    if config.masks.refine != "sam":
        return ""
    return _listing(expand_path(config.masks.proposals.path), ".json")


def file_contents(paths: Iterable[str], runs: Iterable[str] = (), *, remember: bool = True) -> str:
    """Name and sha256 of each file.

    Args:
        runs: folders below ``results`` that rules fill. Their files are left out: Snakemake itself
            watches what its rules make.
        remember: note digests of large files on disk, which saves reading them again.
    """
    folders = [RESULTS.joinpath(run).absolute() for run in runs]
    files = [
        path
        for path in map(Path, paths)
        if not any(path.absolute().is_relative_to(folder) for folder in folders)
    ]
    return ", ".join(f"{path.name} {_digest(path, stamp(path), remember)}" for path in files)


@functools.cache
def _digest(path: Path, seen: Stamp, remember: bool) -> str:
    """The sha256 of a file; that of a large one is remembered with its stamp."""
    if not seen:
        return "missing"
    if not os.access(path, os.R_OK):
        return "unreadable"  # the stage says it
    if seen[0] < _BYTES_WORTH_REMEMBERING:
        return digest_file(path)
    entries: dict[str, list[object]] = {}
    key = str(path.absolute())
    with suppress(OSError, ValueError):  # a damaged file only costs time
        entries = dict(json.loads(_DIGESTS.read_text(encoding="utf-8")))
    before, digest = entries.get(key, [[], ""])
    if before == list(seen):
        return str(digest)
    digest = digest_file(path)
    if not remember:
        return digest
    with suppress(WriteError, OSError):
        write_text(_DIGESTS, json.dumps(entries | {key: [list(seen), digest]}))
    return digest
