"""The folder that ingest writes: manifest and class list."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.data.datasets.classes import ClassList
from wsss.data.manifest import Manifest, read_manifest
from wsss.errors import raise_unless_about

MANIFEST, QUARANTINE, CLASSES, PROVENANCE = (
    "manifest.csv", "quarantine.csv", "classes.json", "provenance.json",
)  # fmt: skip
"""Files in the manifest's folder."""
RECORD = "inputs.json"
"""In the same folder: the files that ingest read, by which the workflow notices changes."""
MASK_TAGS = "mask-tags.csv"
"""In the same folder, with ``data.tags: masks``: the table that `wsss truth tags` writes."""
GIVEN = "given.csv"
"""In the folder of a manifest with other tags (`wsss tag-noise`): the one with the given tags."""


def load(manifest_dir: Path) -> tuple[Manifest, ClassList]:
    """Read the images and classes of a run.

    Raises:
        ArtifactError: ingest did not finish there, or a file is damaged.
    """
    classes = read_classes(manifest_dir / CLASSES)
    return read_manifest(manifest_dir / MANIFEST, classes.names), classes


def load_given(manifest_dir: Path) -> Manifest | None:
    """The images with their given tags, where the manifest has others on purpose; else None.

    Raises:
        ArtifactError: a file is damaged.
    """
    if not (manifest_dir / GIVEN).exists():
        return None
    return read_manifest(manifest_dir / GIVEN, read_classes(manifest_dir / CLASSES).names)


def manifest_digests(manifest_dir: Path) -> dict[str, str]:
    """Digests of the images and of the class list, for the provenance of what is made from them."""
    classes = asdict(read_classes(manifest_dir / CLASSES))
    return {"manifest": digest_file(manifest_dir / MANIFEST), "class_list": digest_json(classes)}


def read_provenance(manifest_dir: Path) -> Provenance:
    """How a manifest was made.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    path = manifest_dir / PROVENANCE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Provenance.model_validate(verified_json(content, path, "rerun ingest"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: is not there; rerun ingest") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: is no provenance ({str(error).splitlines()[0]}); rerun ingest"
        ) from None


def write_provenance(manifest_dir: Path, provenance: Provenance) -> None:
    """Atomically write how a manifest is made, with a checksum."""
    content = json_with_checksum(provenance.model_dump(mode="json"))
    write_text(manifest_dir / PROVENANCE, json.dumps(content, indent=2) + "\n")


def write_classes(path: Path, classes: ClassList) -> None:
    """Atomically write a class list as JSON, with its checksum."""
    content = json_with_checksum(json.loads(json.dumps(asdict(classes))))
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_classes(path: Path) -> ClassList:
    """Read a class list that `write_classes` wrote.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = verified_json(content, path, "rerun ingest")
        names, prompts, backgrounds = (
            tuple(map(str, content[key])) for key in ("names", "prompts", "backgrounds")
        )
        if len(prompts) != len(names):
            raise ValueError(f"{len(names)} names, but {len(prompts)} prompts")
        return ClassList(str(content["name"]), names, prompts, backgrounds)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no class list; run ingest first") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise_unless_about(path, error)
        raise ArtifactError(f"{path}: is no class list ({error!r}); rerun ingest") from None
