"""Import a checkpoint that a method's authors released, so that nothing has to be trained.

The module ``wsss.refine.<method>.released`` describes a release: its function ``import_tensors``
makes the state of `Refiner.trained` from its tensors, ``NEEDED`` are the options of its training,
``REMEDY`` says what to do about a file that does not fit.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.checkpoint_header import (
    checkpoint_facts,
    checkpoint_weights,
    is_checkpoint,
)
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.stage import STAGES
from wsss.artifacts.staleness import refuse_other_supervision
from wsss.config.base import Section
from wsss.config.paths import expand_path
from wsss.data.manifest_folder import load
from wsss.refine.base import Refiner
from wsss.refine.load import Sections, configured_refiner, model_facts
from wsss.refine.registry import METHODS, method_modules, released_module
from wsss.refine.released.matching import ImportReport, differing_options, size_text
from wsss.refine.released.reading import Source, read_source

_log = logging.getLogger(__name__)


def import_checkpoint(
    manifest_dir: Path,
    file: Path | None,
    out: Path,
    cache: Path,
    *,
    report: Path | None = None,
    leave_out: Sequence[str] = (),
    **sections: Unpack[Sections],
) -> None:
    """Write the checkpoint that `wsss.refine.stage.apply` and `predict` take.

    Every tensor of the file is used, or reported with the reason why not; an unknown one is an
    error. A checkpoint of this pipeline is copied.

    Args:
        file: the release's file; None: ``refine.checkpoint``.
        out: checkpoint to write (safetensors).
        report: JSON to write the report to.
        leave_out: beginnings of names that are not needed.

    Raises:
        ArtifactError: the file is damaged or does not fit; the message has everything that is
            wrong.
        UnsafeCheckpointError: the file names code in addition to weights.
        ValueError: no file is given, or the method has no release.
    """
    refine = sections["refine"]
    method = refine.method
    if file is None:
        if refine.checkpoint is None:
            raise ValueError("no checkpoint: pass a file or set refine.checkpoint")
        file = expand_path(refine.checkpoint)
    if not file.is_file():
        raise ArtifactError(
            f"{file}: no such file; pass (or set refine.checkpoint to) a released checkpoint"
        )
    digest = digest_file(file)
    if is_checkpoint(file):
        checkpoint_weights(file, method)  # refuses one of another method
        tensors, provenance = load_checkpoint(file)
        refuse_other_supervision(file, provenance, sections["supervision"])
        facts = checkpoint_facts(file)
        content = ImportReport(dict(tensors), list(tensors))
        content.add_group("unused", "a checkpoint of this pipeline, copied", [file.name])
    else:
        released = sorted(name for name, options in METHODS.items() if options.released)
        if method not in released:
            raise ValueError(
                f"refine.method is {method}: checkpoints of released code are read for "
                f"{' and '.join(released)} alone; {file} is none of this pipeline either"
            )
        source = read_source(file)
        _, classes = load(manifest_dir)
        refiner = configured_refiner(sections, classes, cache)
        options: dict[str, Section] = {"clip": sections["clip"], "refine": refine}
        content = _import(refiner, source, leave_out, file, options, method)
        facts = model_facts(classes)
        provenance = STAGES["refine_import"].provenance(
            sections,
            modules=[*method_modules(method, sections["cams"]), released_module(method)],
            weights=refiner.frozen_weights() | {"authors": digest},
            inputs={file.name: digest},
        )
    _log.info("%s: %s", file.name, content.text(None if report is None else 3))
    if report is not None:
        write_text(report, json.dumps(_record(file, digest, method, content), indent=1) + "\n")
    save_checkpoint(out, content.tensors, provenance, facts=facts)


def _import(
    refiner: Refiner[Any],
    source: Source,
    leave_out: Sequence[str],
    file: Path,
    sections: Mapping[str, Section],
    method: str,
) -> ImportReport:
    release = importlib.import_module(released_module(method))
    report: ImportReport
    report, rest = release.import_tensors(refiner, source.tensors)
    report.add_problems("set otherwise", differing_options(sections, release.NEEDED))
    dropped = {name for name in rest if name.startswith(tuple(leave_out))}
    report.add_group("left out", "named with --leave-out", [n for n in rest if n in dropped])
    report.add_group("left out", "entries next to the weights, for the training", source.others)
    unknown = (f"{n}: {size_text(source.tensors[n].shape)}" for n in rest if n not in dropped)
    report.add_problems("unknown", unknown)
    report.raise_if_errors(file, release.REMEDY)
    return report


def _record(file: Path, digest: str, method: str, report: ImportReport) -> dict[str, object]:
    return {
        "file": file.name,
        "sha256": digest,
        "method": method,
        "used": sorted(report.used),
        "groups": [
            {"status": group.status, "why": group.why, "names": list(group.names)}
            for group in report.groups
        ],
    }
