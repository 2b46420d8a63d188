"""The ingest stage: from lists and tags to a manifest of images that decode in full."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checksum import read_checked_text, write_checked_text
from wsss.artifacts.digest import digest_file
from wsss.artifacts.stage import STAGES
from wsss.artifacts.watch import stamp, write_record
from wsss.artifacts.write_errors import writing
from wsss.config.base import Variant
from wsss.config.compute import ComputeConfig
from wsss.config.data import DataConfig
from wsss.data.datasets.inputs import input_stamps
from wsss.data.datasets.registry import read_dataset
from wsss.data.errors import DataError, IngestError
from wsss.data.images.decode import DecodeCache, decode_all
from wsss.data.ingest.triage import QuarantineRow, Triage, quarantine_text, triage
from wsss.data.manifest import manifest_text
from wsss.data.manifest_folder import (
    CLASSES,
    MANIFEST,
    MASK_TAGS,
    QUARANTINE,
    RECORD,
    write_classes,
    write_provenance,
)

TEST = "test"
_log = logging.getLogger(__name__)
_MAX_REASONS = 3
_MAX_DETAIL = 200  # letters
_TOLERATED = 5  # unusable images, whatever their share: in a small folder one is many percent


@dataclass(frozen=True)
class IngestReport:
    """Counts of an ingest."""

    images: dict[str, int]
    """Usable images of each split."""
    unusable: int
    skipped: int
    noted: int
    """Used, and listed in the quarantine table."""
    reused: int
    """Files unchanged since the last ingest, which were not decoded again."""
    decoded: int
    quarantine: Path

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in self.images.items()) or "0"
        return (
            f"{sum(self.images.values())} images ({splits}): {self.reused} reused, "
            f"{self.decoded} decoded; {self.unusable} unusable, {self.skipped} skipped, "
            f"{self.noted} with a note, listed in {self.quarantine}"
        )


def ingest(
    out: Path,
    *,
    variant: Variant,
    data: DataConfig,
    compute: ComputeConfig,
    test_list: str = "",
    state: str = "",
) -> IngestReport:
    """Decode every image and write manifest, quarantine table, class list and provenance.

    The manifest is written last: if it exists, the other files are complete.

    Args:
        variant: published or corrected prompt words.
        test_list: this list instead of the configured ones, as the split ``test``: images to
            predict, which need no tags.
        state: of the files, as the workflow saw them, for the record (`wsss.artifacts.watch`).

    Raises:
        DataError: the data set cannot be read as configured.
        IngestError: too many of the images cannot be used, or none can; then the quarantine table
            is written, but no manifest.
    """
    for earlier in (out / MANIFEST, out / QUARANTINE):
        with writing(earlier):
            earlier.unlink(missing_ok=True)
    started = time.time_ns()
    given = data
    data = only_test(data, test_list) if test_list else data
    stamps = {} if data.kind == "demo" else input_stamps(data)
    data = data if test_list else _with_mask_tags(data, out)
    dataset = read_dataset(data, variant)
    if not dataset.candidates:
        raise IngestError(f"data.root: {data.root}: the lists name no image at all")
    candidates = [image for image in dataset.candidates if not image.problem and not image.skipped]
    paths = list(dict.fromkeys(image.path for image in candidates))
    cache = DecodeCache(out / ".cache" / "decoded.json")
    decoded, reused = decode_all(paths, cache, max_pixels=data.max_pixels, workers=compute.workers)
    images = triage(dataset.candidates, decoded)
    if test_list:
        images = images.as_split(TEST)
    table = out / QUARANTINE
    quarantine = quarantine_text(images.rows)
    write_text(table, quarantine)
    _check_limit(images, data.quarantine_limit, table)

    sources = {str(path): digest_file(path) for path in dataset.sources}
    manifest = manifest_text(images.samples, dataset.classes.names)
    write_classes(out / CLASSES, dataset.classes)
    # Of the texts: another ingest of the same folder may have removed the files again.
    outputs = {QUARANTINE: _sha256(quarantine), MANIFEST: _sha256(manifest)}
    outputs[CLASSES] = digest_file(out / CLASSES)
    provenance = STAGES["ingest"].provenance(
        {"variant": variant, "data": given},
        inputs=sources,
        outputs=outputs,
    )
    write_provenance(out, provenance)
    if stamps:
        stamps |= {path: there for path in map(str, paths) if (there := stamp(path))}
        digests = sources | {str(path): facts.digest for path, facts in decoded.items()}
        digests |= {path: digest_file(Path(path)) for path in stamps if path.endswith(".xml")}
        write_record(out / RECORD, state, stamps, digests, started)
    write_checked_text(out / MANIFEST, manifest)
    used = Counter(row.used for row in images.rows)
    report = IngestReport(
        images=dict(Counter(sample.split for sample in images.samples)),
        unusable=used["no"],
        skipped=used["skipped"],
        noted=used["yes"],
        reused=reused,
        decoded=len(paths) - reused,
        quarantine=table,
    )
    _log.info("%s", report)
    return report


def _with_mask_tags(data: DataConfig, out: Path) -> DataConfig:
    """The section with the table of `wsss truth tags`, if tags come from masks."""
    if data.tags != "masks":
        return data
    table = out / MASK_TAGS
    command = f"wsss truth tags --out {quote(str(table))}"
    if not table.is_file():
        raise DataError(f"{table}: not there, but data.tags is masks; run `{command}` first")
    read_checked_text(table, f"run `{command}` again")
    return data.model_copy(update={"tags": str(table)})


def only_test(data: DataConfig, test_list: str) -> DataConfig:
    """The section with one list of held-out images only; these have no masks."""
    tags = "auto" if data.tags == "masks" else data.tags
    return data.model_copy(update={"train_list": "", "val_list": test_list, "tags": tags})


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check_limit(images: Triage, limit: float, table: Path) -> None:
    unusable = images.unusable
    total = len(images.samples) + len(unusable)
    if not images.samples:
        skipped = [row for row in images.rows if row.used == "skipped"]
        reasons = _most_frequent(unusable or skipped)
        raise IngestError(f"no image is left to use: {reasons}. All are listed in {table}")
    if len(unusable) > _TOLERATED and len(unusable) / total > limit:
        raise IngestError(
            f"{len(unusable)} of {total} images ({len(unusable) / total:.1%}) cannot be used, over "
            f"data.quarantine_limit ({limit:.1%}): {_most_frequent(unusable)}. All are listed in "
            f"{table}; mend or remove them, or raise the limit"
        )
    if unusable:
        _log.warning(
            "%d of %d images cannot be used and are left out: %s. They are listed in %s",
            *(len(unusable), total, _most_frequent(unusable), table),
        )


def _most_frequent(rows: Sequence[QuarantineRow]) -> str:
    """The most frequent kinds of reasons, each with its count and one file and its reason."""
    examples: dict[str, QuarantineRow] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        kind = row.reason.partition(":")[0].partition(" (")[0]
        counts[kind] += 1
        examples.setdefault(kind, row)
    named = []
    for kind, count in counts.most_common(_MAX_REASONS):
        detail = examples[kind].reason.removeprefix(kind)[:_MAX_DETAIL]
        named.append(f"{count} {kind!r}, e.g. {examples[kind].file}{detail}")
    return "; ".join(named) + ("; …" if len(counts) > _MAX_REASONS else "")
