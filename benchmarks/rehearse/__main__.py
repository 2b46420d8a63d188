"""Every preset and every table, end to end at reduced size: `python -m benchmarks.rehearse`.

A copy of the project is made in a folder, its presets and tables with the reductions that this
command prints first; every other value is as they say. A few photographs of WSSS_SHARED are laid
out there as VOC, COCO and a folder of photos, and files with random weights take the place of
those that presets read or download. Then the workflow runs, one target at a time. Results are no
results: the encoder is random.

Printed are seconds of the processor and peak memory of each stage, and from them the core hours
and the memory of the full run on this processor; the last lines of a target that fails, which
stops no other; and at its end exit code 1. Targets that ended as they are configured now are not
repeated, unless with --again. Jobs that were measured before an interruption count. Other work on
the machine slows the rehearsal, but changes seconds of the processor little.

With `--write FILE` the table of docs/howto/reproduce.md is written from what is finished.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.rehearse.full_run import FORMULA, Estimate, estimate, jobs_of
from benchmarks.rehearse.jobs import Job, JobWatch, Loop
from benchmarks.rehearse.project import (
    ROOT,
    TABLE,
    configs_of,
    prepare,
    preset_files,
    preset_targets,
    provide,
    targets,
)
from benchmarks.rehearse.reductions import describe
from benchmarks.rehearse.report import full_table, processor, stage_table
from wsss.artifacts.digest import digest_json
from wsss.config.paths import SHARED_VARIABLE, expand_path

_LAST_LINES = 25


@dataclass(frozen=True)
class Rehearsal:
    """Where the rehearsals run."""

    folder: Path
    shared: Path
    """The real WSSS_SHARED."""
    photos: tuple[int, int]
    cores: int


def main() -> None:
    """Parse the command line and run."""
    logging.disable(logging.WARNING)  # open_clip and mmengine tell of random weights
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "targets", nargs="*", metavar="PRESET", help="presets or table_… (default: all of them)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results/rehearsal", help="folder")
    parser.add_argument(
        "--photos", type=int, nargs=2, default=(3, 2), metavar=("TRAIN", "VAL"),
        help="photographs (default: 3 2)",
    )  # fmt: skip
    parser.add_argument("--cores", type=int, default=1, help="of the workflow (default: 1)")
    parser.add_argument("--again", action="store_true", help="also what is finished")
    parser.add_argument("--write", type=Path, help="write the table of full runs to this file")
    options = parser.parse_args()
    write = options.write and options.write.resolve()
    if unknown := set(options.targets) - set(targets()):
        parser.error(f"no preset {', '.join(sorted(unknown))}; there are {', '.join(targets())}")
    here = Rehearsal(
        options.out.resolve(),
        expand_path(f"${{{SHARED_VARIABLE}}}").resolve(),
        tuple(options.photos),
        options.cores,
    )
    if not (here.shared / "data").is_dir():
        parser.error(
            f"{here.shared}: has no folder data; set {SHARED_VARIABLE} to the folder with "
            "data/voc-subset and data/coco-subset"
        )
    lines = ["Reductions; every other value is the preset's:", *describe(here.photos), FORMULA]
    print("\n".join([*lines, f"Processor: {processor()}"]), flush=True)
    prepare(here.folder, here.photos)
    os.environ[SHARED_VARIABLE] = str(here.folder / "shared")
    os.chdir(here.folder)
    failed = []
    for target in options.targets or targets():
        if options.again:
            _forget(target)
        if _is_finished(target):
            print(f"{target}: finished before", flush=True)
        elif not rehearse(target, here):
            failed.append(target)
    if write:
        estimates = {name: _estimates(name, here) for name in targets() if _is_finished(name)}
        write.write_text(full_table(estimates), encoding="utf-8")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def rehearse(target: str, here: Rehearsal) -> bool:
    """Run a target; print its stages, or why it failed."""
    start = time.monotonic()
    print(f"{target}: {time.strftime('%H:%M:%S')}", flush=True)
    try:
        provide(target, here.shared, here.photos, here.folder)
    except Exception as error:  # whatever it is, the other targets run
        print(f"{target}: failed before it ran: {error or repr(error)}", flush=True)
        return False
    code, output = _run(target, here)
    seconds = time.monotonic() - start
    if code:
        lines = output.rstrip().splitlines()[-_LAST_LINES:]
        print("\n".join([f"{target}: failed after {seconds:.0f} s", *lines]), flush=True)
        return False
    _record(target).parent.mkdir(exist_ok=True)
    estimates = _estimates(target, here)
    record = {
        "target": target,
        "configuration": _digest(target),
        "seconds": seconds,
        "stages": [asdict(one) for one in estimates],
    }
    _record(target).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{target}: finished in {seconds:.0f} s\n{stage_table(estimates)}", flush=True)
    return True


def _run(target: str, here: Rehearsal) -> tuple[int, str]:
    """Exit code of the workflow and what it printed; its jobs are measured."""
    removed = ("PYTHONPATH", "WSSS_ENGINE_PID", "WSSS_ENGINE_HOST", "WSSS_JOB")
    environment = {key: value for key, value in os.environ.items() if key not in removed}
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", str(here.cores)]
    if target.startswith(TABLE):
        command.append(target)
    else:
        command += ["--configfile", *preset_files(target), "--", *preset_targets(target)]
    log = Path("rehearsals", f"{target}.log")
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        engine = subprocess.Popen(
            command, env=environment | {"OMP_NUM_THREADS": "1"}, stdout=stream, stderr=stream
        )
        watch = JobWatch(engine.pid, here.folder)
        watch.start()
        try:
            code = engine.wait()
        finally:
            engine.terminate()
            engine.wait()
            _store(watch.jobs())
    return code, log.read_text(encoding="utf-8", errors="replace")


def _estimates(target: str, here: Rehearsal) -> list[Estimate]:
    """Of the jobs of a target's runs, in the order in which they ran."""
    full, reduced = configs_of(target, ROOT), configs_of(target, here.folder)
    return [
        estimate(run, job, full.get(run), reduced.get(run), here.shared)
        for run, job in jobs_of(target, full, _stored())
    ]


def _record(target: str) -> Path:
    return Path("rehearsals", f"{target}.json")


def _is_finished(target: str) -> bool:
    """Whether it ended, configured as it is now."""
    path = _record(target)
    if not path.exists():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    return bool(record.get("configuration") == _digest(target))


def _digest(target: str) -> str:
    runs = configs_of(target, ROOT).items()
    return digest_json([[name, config.model_dump(mode="json")] for name, config in runs])


def _forget(target: str) -> None:
    """Delete a target's results, so that they are computed and measured anew."""
    _record(target).unlink(missing_ok=True)
    name = target.removeprefix(TABLE)
    shutil.rmtree(f"results/tables/{name}" if target.startswith(TABLE) else f"results/{name}",
                  ignore_errors=True)  # fmt: skip


_MEASURED = Path("rehearsals/jobs.json")


def _store(jobs: Sequence[Job]) -> None:
    """Add jobs to those that were measured before."""
    by_log = {job.log: job for job in [*_stored(), *jobs]}
    content = [asdict(job) for job in by_log.values()]
    _MEASURED.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _stored() -> list[Job]:
    if not _MEASURED.exists():
        return []
    content = json.loads(_MEASURED.read_text(encoding="utf-8"))
    return [Job(**one | {"loops": tuple(Loop(**loop) for loop in one["loops"])}) for one in content]


if __name__ == "__main__":
    main()
