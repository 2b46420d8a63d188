"""What a job costs before it computes anything: `python -m benchmarks.starts`.

Processor seconds of whole processes, from start to end, in interleaved rounds:

- torch: Python that imports torch and ends, which every stage with a network does;
- wsss: the command line without a stage (`wsss --version`);
- CAM job: a job of the workflow whose images are all computed already.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.timing import interleaved, median_ratio
from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import DEMO
from wsss.pipeline.job import JOB_VARIABLE, job_of, named_by_digest


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All timings; prints the table."""
    job = _cam_job(folder)
    tasks = {
        "torch": _process(folder, "-c", "import torch"),
        "wsss": _process(folder, "-m", "wsss", "--version"),
        "CAM job": job,
    }
    times = interleaved(tasks, rounds, clock=_seconds_of_children)
    print("| | processor seconds | of torch's |\n|---|---:|---:|")
    for name, seconds in times.items():
        ratio = median_ratio(seconds, times["torch"])
        print(f"| {name} | {statistics.median(seconds):.2f} | {ratio:.2f} |")
    return {"processor_seconds": times}


def _cam_job(folder: Path) -> Callable[[], object]:
    """A job whose shard is there; the folder holds what it reads."""
    data = {"data": {"root": str(folder / "scenes")}}
    config = from_mapping(overlay(DEMO, data))
    (folder / "config.yaml").write_text(yaml.safe_dump(overlay(DEMO, data)), encoding="utf-8")
    _process(folder, "-m", "wsss", "demo", "make", "scenes", "--train", "4", "--val", "1")()
    _process(folder, "-m", "wsss", "ingest", "--out", "manifest")()
    text = job_of("cams", config).text()
    path = named_by_digest(folder, "job", text)
    path.write_text(text, encoding="utf-8")
    command = ("-m", "wsss", "cams", "--manifest", "manifest", "--out", "cams.h5")
    job = _process(folder, *command, environment={JOB_VARIABLE: str(path)})
    job()
    return job


def _process(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Callable[[], object]:
    """Runs Python to its end, in the folder.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    variables = os.environ | {"OMP_NUM_THREADS": "1", **(environment or {})}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's Python caches bytecode
    return lambda: subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, check=True
    )


def _seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
