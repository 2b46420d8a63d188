"""The ingest stage: from lists and tags to a manifest of images that decode in full."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import read_checked_text
from wsss.artifacts.digest import digest_file
from wsss.artifacts.provenance import Provenance, provenance
from wsss.artifacts.write_errors import writing
from wsss.config.base import Variant
from wsss.config.data import DataConfig
from wsss.config.model import Config
from wsss.data.datasets.candidates import Candidate
from wsss.data.datasets.registry import read_dataset
from wsss.data.errors import DataError, IngestError
from wsss.data.images.decode import Memory, decode_all
from wsss.data.ingest.triage import Decisions, Row, decide, write_quarantine
from wsss.data.manifest import write_manifest
from wsss.data.manifest_folder import (
    CLASSES,
    MANIFEST,
    MASK_TAGS,
    PROVENANCE,
    QUARANTINE,
    write_classes,
)

TEST = "test"
_log = logging.getLogger(__name__)
_NAMED = 3


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did."""

    images: dict[str, int]
    """Usable images of each split."""
    unusable: int
    skipped: int
    noted: int
    """Used, but listed in the quarantine table."""
    recalled: int
    """Files unchanged since the last ingest, which were not decoded again."""
    decoded: int
    quarantine: Path

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in self.images.items()) or "0"
        return (
            f"{sum(self.images.values())} images ({splits}): {self.recalled} reused, "
            f"{self.decoded} decoded; {self.unusable} unusable, {self.skipped} skipped, "
            f"{self.noted} with a note, listed in {self.quarantine}"
        )


def ingest(config: Config, out: Path, test_list: str = "") -> IngestReport:
    """Decode every image and write manifest, quarantine table, class list and provenance.

    The manifest is written last: where it exists, the rest is complete.

    Args:
        config: reads `data`, `variant` and `compute.workers`.
        out: the folder to write.
        test_list: instead of the configured lists this one, as the split ``test``: images to
            predict, of which nothing else need be known.

    Raises:
        DataError: the data set cannot be read as configured.
        IngestError: too large a share of the images cannot be used, or none can; the quarantine
            table is written, a manifest is not.
    """
    with writing(out / MANIFEST):
        (out / MANIFEST).unlink(missing_ok=True)
    data = _only_test(config.data, test_list) if test_list else _with_table(config.data, out)
    dataset = read_dataset(data, config.variant)
    if not dataset.candidates:
        raise IngestError(f"data.root: {config.data.root}: the lists name no image at all")
    to_open = _to_open(dataset.candidates)
    decoded, recalled = decode_all(
        to_open,
        Memory(out / ".cache" / "decoded.json"),
        max_pixels=config.data.max_pixels,
        workers=config.compute.workers,
    )
    decisions = decide(dataset.candidates, decoded)
    if test_list:
        decisions = decisions.as_split(TEST)
    table = out / QUARANTINE
    write_quarantine(table, decisions.rows)
    _check_share(decisions, config.data.quarantine_limit, table)

    made = _provenance(data, config.variant, dataset.sources)
    write_classes(out / CLASSES, dataset.classes)
    write_text(out / PROVENANCE, made.model_dump_json(indent=2) + "\n")
    write_manifest(out / MANIFEST, decisions.samples, dataset.classes.names)
    report = IngestReport(
        images=dict(Counter(sample.split for sample in decisions.samples)),
        unusable=len(decisions.unusable),
        skipped=sum(row.used == "skipped" for row in decisions.rows),
        noted=sum(row.used == "yes" for row in decisions.rows),
        recalled=recalled,
        decoded=len(to_open) - recalled,
        quarantine=table,
    )
    _log.info("%s", report)
    return report


def _with_table(data: DataConfig, out: Path) -> DataConfig:
    """The section with the table that `wsss truth tags` made, where tags come from masks."""
    if data.tags != "masks":
        return data
    table = out / MASK_TAGS
    if not table.is_file():
        raise DataError(
            f"{table}: not there, but data.tags is masks; run `wsss truth tags --out {table}` first"
        )
    read_checked_text(table, f"run `wsss truth tags --out {table}` again")
    return data.model_copy(update={"tags": str(table)})


def _only_test(data: DataConfig, test_list: str) -> DataConfig:
    """The section with nothing but held-out images of one list; they have no masks."""
    tags = "auto" if data.tags == "masks" else data.tags
    return data.model_copy(update={"train_list": "", "val_list": test_list, "tags": tags})


def _provenance(data: DataConfig, variant: Variant, sources: Sequence[Path]) -> Provenance:
    made = provenance(
        "ingest",
        entry=["wsss.data.ingest.stage"],
        sections={"data": data},
        seed=0,  # nothing is random here
        inputs={str(path): digest_file(path) for path in sources},
    )
    return made.model_copy(update={"config": made.config | {"variant": variant}})


def _to_open(candidates: Sequence[Candidate]) -> list[Path]:
    """The distinct files that may be used, in order."""
    paths = (one.path for one in candidates if not one.problem and not one.skipped)
    return list(dict.fromkeys(paths))


def _check_share(decisions: Decisions, limit: float, table: Path) -> None:
    lost = decisions.unusable
    if decisions.share > limit:
        asked = len(decisions.samples) + len(lost)
        raise IngestError(
            f"{len(lost)} of {asked} images ({decisions.share:.1%}) cannot be used, over "
            f"data.quarantine_limit ({limit:.1%}): {_most_frequent(lost)}. All are listed in "
            f"{table}; mend or remove them, or raise the limit"
        )
    if not decisions.samples:
        raise IngestError(f"no image is left to use; see {table}")


def _most_frequent(rows: Sequence[Row]) -> str:
    """The first reasons, each with how often it occurs and one file."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.reason.partition(":")[0].partition(" (")[0], []).append(row)
    order = sorted(kinds.items(), key=lambda entry: -len(entry[1]))
    named = [f"{len(found)} {kind!r}, e.g. {found[0].file}" for kind, found in order[:_NAMED]]
    return "; ".join(named) + ("; …" if len(order) > _NAMED else "")
