"""Read what ingest wrote: the manifest and its class list."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.errors import ArtifactError
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Manifest, read_manifest

MANIFEST, QUARANTINE, CLASSES, PROVENANCE = (
    "manifest.csv", "quarantine.csv", "classes.json", "provenance.json",
)  # fmt: skip
"""Files in the manifest's folder."""
MASK_TAGS = "mask-tags.csv"
"""There, too, with ``data.tags: masks``: what `wsss truth tags` read from pixel labels."""


def load(manifest_dir: Path) -> tuple[Manifest, ClassList]:
    """The images and classes of a run.

    Raises:
        ArtifactError: ingest did not finish there, or a file is damaged.
    """
    classes = read_classes(manifest_dir / CLASSES)
    return read_manifest(manifest_dir / MANIFEST, classes.names), classes


def write_classes(path: Path, classes: ClassList) -> None:
    """Atomically write a class list as JSON, with its digest."""
    content = json_with_checksum(json.loads(json.dumps(asdict(classes))))
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_classes(path: Path) -> ClassList:
    """Read what `write_classes` wrote.

    Raises:
        ArtifactError: missing, or no class list.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        content = verified_json(stored, path, "rerun ingest")
        classes = ClassList(
            name=str(content["name"]),
            names=tuple(map(str, content["names"])),
            prompts=tuple(map(str, content["prompts"])),
            backgrounds=tuple(map(str, content["backgrounds"])),
        )
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no class list; run ingest first") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path}: is no class list ({error!r}); rerun ingest") from None
    if len(classes.prompts) != len(classes.names):
        raise ArtifactError(
            f"{path}: has {len(classes.names)} names but {len(classes.prompts)} prompts; "
            "rerun ingest"
        )
    return classes
