"""Import a checkpoint that a method's authors released, so that nothing has to be trained."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.checkpoint_header import checkpoint_weights
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import provenance
from wsss.clip.input import EncoderInput
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.data.manifest_folder import load
from wsss.refine.registry import METHODS, method_module, released_module
from wsss.refine.released.matching import ImportReport, size_text
from wsss.refine.released.reading import Source, is_ours, read_source

_log = logging.getLogger(__name__)
_ENTRY = "wsss.refine.released.importer"


def import_checkpoint(
    config: Config,
    manifest_dir: Path,
    file: Path | None,
    out: Path,
    cache: Path,
    *,
    report: Path | None = None,
    leave_out: Sequence[str] = (),
) -> None:
    """Write the checkpoint that `wsss.refine.stage.apply` and `predict` take.

    Every tensor of the file is used, or told of with the reason why not; what is not known is an
    error. A checkpoint of this pipeline is taken as it is.

    Args:
        config: data, clip and refine.
        manifest_dir: what ingest wrote.
        file: the release's file; None: ``refine.checkpoint``.
        out: checkpoint to write (safetensors).
        cache: folder for downloads.
        report: JSON to write the account to.
        leave_out: beginnings of names that are of no use.

    Raises:
        ArtifactError: the file is damaged or does not fit; the message has everything that is
            wrong.
        UnsafeCheckpointError: the file names code beside weights.
        ValueError: no file is given, or the method has no release.
    """
    method = config.refine.method
    if file is None:
        if config.refine.checkpoint is None:
            raise ValueError("no checkpoint: pass a file or set refine.checkpoint")
        file = expand_path(config.refine.checkpoint)
    if not file.is_file():
        raise ArtifactError(
            f"{file}: no such file; pass (or set refine.checkpoint to) a released checkpoint"
        )
    digest = digest_file(file)
    if is_ours(file):
        checkpoint_weights(file, method)  # refuses one of another method
        tensors, made = load_checkpoint(file)
        found = ImportReport(dict(tensors), list(tensors))
        found.note("carried along", "a checkpoint of this pipeline, taken as it is", [file.name])
    else:
        released = sorted(name for name, options in METHODS.items() if options.released)
        if method not in released:
            raise ValueError(
                f"refine.method is {method}: checkpoints were released of "
                f"{' and '.join(released)} alone; {file} is none of this pipeline either"
            )
        source = read_source(file)
        inputs = EncoderInput(
            config.clip, cache, max_pixels=config.data.max_pixels, device=config.compute.device
        )
        found = _account(config, manifest_dir, inputs, source, leave_out, file)
        made = provenance(
            "refine_import",
            entry=(_ENTRY, method_module(method), released_module(method)),
            sections={name: getattr(config, name) for name in ("data", "clip", "refine")},
            seed=0,  # nothing is random here
            weights={"clip": inputs.clip.digest, "authors": digest},
            inputs={file.name: digest},
        )
    _log.info("%s: %s", file.name, found.text(None if report is None else 3))
    if report is not None:
        write_text(report, json.dumps(_record(file, digest, method, found), indent=1) + "\n")
    save_checkpoint(out, found.tensors, made)


def _account(
    config: Config,
    manifest_dir: Path,
    inputs: EncoderInput,
    source: Source,
    leave_out: Sequence[str],
    file: Path,
) -> ImportReport:
    _, classes = load(manifest_dir)
    module = importlib.import_module(released_module(config.refine.method))
    found: ImportReport
    found, rest = module.account(config, classes, inputs, source.tensors)
    dropped = [name for name in rest if name.startswith(tuple(leave_out))]
    found.note("left out", "named with --leave-out", dropped)
    found.note("left out", "entries beside the weights, for the training", source.beside)
    found.object_to(
        "unknown",
        (
            f"{name}: {size_text(source.tensors[name].shape)}"
            for name in rest
            if name not in set(dropped)
        ),
    )
    found.settle(file, module.REMEDY)
    return found


def _record(file: Path, digest: str, method: str, found: ImportReport) -> dict[str, object]:
    return {
        "file": file.name,
        "sha256": digest,
        "method": method,
        "used": sorted(found.used),
        "groups": [
            {"fate": group.fate, "why": group.why, "names": list(group.names)}
            for group in found.groups
        ],
    }
