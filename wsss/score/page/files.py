"""The file next to a page's pictures that says what the page shows and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.config.base import Supervision
from wsss.config.data import DataConfig
from wsss.config.score import PicturesConfig

FILES = "files.json"
INDEX, EMBEDDED = "index", "embedded"
"""The page with its pictures in a folder, and the one that holds some of them."""
_AGAIN = "make the page again"


@dataclass(frozen=True)
class RunFiles:
    """The files of a run that a page shows."""

    name: str
    manifest: Path
    """The folder that ingest wrote."""
    shards: Mapping[str, Sequence[Path]]
    """By product, see `wsss.score.page.build.PRODUCTS`; of all splits."""
    records: Sequence[Path]
    """Files of `wsss score`."""


@dataclass(frozen=True)
class Shown:
    """What a page shows."""

    run: RunFiles
    supervision: Supervision
    data: DataConfig
    pictures: PicturesConfig


def write_shown(
    folder: Path,
    shown: Shown,
    provenance: Provenance,
    pages: Mapping[str, str],
    pictures: Mapping[str, str],
) -> None:
    """Write the file.

    Args:
        pages: the texts of `INDEX` and perhaps `EMBEDDED`.
        pictures: sha256 of each picture, by its name.
    """
    run = shown.run
    content = {
        "name": run.name,
        "manifest": str(run.manifest),
        "shards": {product: list(map(str, paths)) for product, paths in run.shards.items()},
        "records": list(map(str, run.records)),
        "supervision": shown.supervision,
        "data": shown.data.model_dump(mode="json"),
        "pictures": shown.pictures.model_dump(mode="json"),
        "provenance": provenance.model_dump(mode="json"),
        "pages": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in pages.items()},
        "drawings": dict(pictures),
    }
    text = json.dumps(json_with_checksum(content), ensure_ascii=False)
    (folder / FILES).write_text(text + "\n", "utf-8")


def read_shown(results: Path) -> Shown:
    """What the page of a run shows.

    Args:
        results: the folder that has ``index.html``.

    Raises:
        ArtifactError: the folder has no result page, or its file is damaged.
    """
    path, content = _read(results)
    try:
        shards = {key: list(map(Path, paths)) for key, paths in content["shards"].items()}
        records = list(map(Path, content["records"]))
        run = RunFiles(content["name"], Path(content["manifest"]), shards, records)
        data, pictures = DataConfig(**content["data"]), PicturesConfig(**content["pictures"])
        return Shown(run, content["supervision"], data, pictures)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: is damaged ({error!r}); {_AGAIN}") from None


def page_provenance(results: Path) -> Provenance:
    """How a page was made.

    Raises:
        ArtifactError: as `read_shown`.
    """
    path, content = _read(results)
    try:
        return Provenance.model_validate(content["provenance"])
    except (ValueError, KeyError) as error:
        raise ArtifactError(f"{path}: is damaged ({error!r}); {_AGAIN}") from None


def edits(results: Path, embedded: Path | None = None, *, quick: bool = False) -> Iterator[str]:
    """What of a page was edited since it was made, as sentences.

    Args:
        results: the folder that has ``index.html``.
        embedded: look at this page alone, which holds its pictures.
        quick: do not read the pictures.

    Raises:
        ArtifactError: as `read_shown`.
    """
    _, content = _read(results)
    name, page = (INDEX, results / "index.html") if embedded is None else (EMBEDDED, embedded)
    if digest_file(page) != content["pages"].get(name):
        yield "was edited"
    if embedded is not None or quick:
        return
    for file, digest in content["drawings"].items():
        picture = results / "page" / file
        if not picture.is_file() or digest_file(picture) != digest:
            yield f"its picture page/{file} was edited or is missing"
            return


def _read(results: Path) -> tuple[Path, dict[str, Any]]:
    path = results / "page" / FILES
    try:
        content = verified_json(json.loads(path.read_text("utf-8")), path, _AGAIN)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file; pass the results of a run that has a result page"
        ) from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path}: is damaged ({error}); {_AGAIN}") from None
    return path, content
