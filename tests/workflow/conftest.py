"""A copy of the project with a tiny data set, in which the whole DAG runs once a session."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders import TINY
from wsss.config.base import overlay
from wsss.config.model import DEMO

from .jobs import python_of_jobs, run_snakemake

ROOT = Path(__file__).parents[2]
RUN = "tiny"
CONFIG = overlay(
    TINY,
    {
        "name": RUN,
        "shards": 2,
        "compute": {"workers": 1},
        "data": {"root": "results/tiny-data", "demo_images": [14, 4]},
        "clip": dict(DEMO["clip"]),
        "cams": {"affinity": {"enabled": True}},
        "refine": {"train": {"iterations": 4}},
        "masks": {"min_score": 0.0},  # four steps make no score sure
        "retrain": {"iterations": 3},
    },
)
SCREEN = "screen.txt"
"""In the finished project: what its last run, without a terminal, showed."""
ENGINE = Path(sys.executable).with_name("snakemake")


@dataclass
class Project:
    """A copy of the project that tests may edit."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / "results" / RUN

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {
            k: v
            for k, v in os.environ.items()
            if k not in ("PYTHONPATH", "WSSS_ENGINE_PID", "WSSS_ENGINE_HOST")
        }
        command = ["--configfile", "tiny.yaml", "--cores", "2", *map(str, arguments)]
        done = run_snakemake(command, cwd=self.root, env=environment)
        if check and done.returncode:
            raise AssertionError(f"snakemake failed:\n{done.stdout}\n{done.stderr}")
        return done

    def wsss(self, *arguments: str) -> subprocess.Popen[str]:
        command = [python_of_jobs(), "-m", "wsss", *arguments]
        return subprocess.Popen(
            command, cwd=self.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def configure(self, **changes: object) -> None:
        (self.root / "tiny.yaml").write_text(json.dumps(CONFIG | changes))

    def would_run(self, *targets: str) -> Counter[str]:
        """Names of the rules that a run would execute now, with the number of jobs."""
        return jobs(self.snakemake("--dry-run", *targets).stdout)

    def runs(self, *targets: str) -> Counter[str]:
        """Run, and give the names of the rules that the engine's log says, as `would_run`."""
        logs = self.root / ".snakemake/log"
        before = set(logs.glob("*.log"))
        self.snakemake("--", *targets)
        (log,) = set(logs.glob("*.log")) - before
        return jobs(log.read_text())


def jobs(dry: str) -> Counter[str]:
    """Names of the rules in what a dry run printed, or in an engine's log, with the number of jobs.

    A score counts under the product that it scores: ``score_masks``.
    """
    if "Job stats:" not in dry:
        return Counter()
    table = dry.split("Job stats:")[1].strip().split("\n\n")[0]
    rows = [line.split() for line in table.splitlines()[2:]]  # below the head and its rule
    counts = {rule: int(count) for rule, count in rows}
    assert counts.pop("total") == sum(counts.values())
    counts.pop("all", None)
    if counts.pop("score", 0):
        counts |= Counter(f"score_{product}" for product in re.findall(r": Scoring (\w+) of", dry))
    return Counter(counts)


def copy_project(target: Path) -> Project:
    """Copy what the workflow needs, bytecode too; data and results stay behind.

    So do tables of papers: each engine reads all of their runs, however few jobs it has.
    """
    ignore = shutil.ignore_patterns("*.opt-*", "*.pyc.*", ".*")  # of shape checks, being written
    for name in ("wsss", "workflow"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    shutil.copytree(ROOT / "envs", target / "envs")
    (target / "profiles").symlink_to((ROOT / "profiles").readlink())
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, target / name)
    for table in (target / "workflow/tables").iterdir():
        table.unlink()
    project = Project(target)
    project.configure()
    return project


@contextmanager
def truth_out_of_reach(project: Project) -> Iterator[None]:
    """The pixel labels under another name."""
    truth = project.root / "results/tiny-data/SegmentationClass"
    aside = truth.with_name("aside")
    truth.rename(aside)
    try:
        yield
    finally:
        aside.rename(truth)


@contextmanager
def tables_of_papers(project: Project) -> Iterator[None]:
    """With all tables there, as in a clone."""
    folder = project.root / "workflow/tables"
    shutil.copytree(ROOT / "workflow/tables", folder, dirs_exist_ok=True)
    try:
        yield
    finally:
        for table in folder.iterdir():
            table.unlink()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after one whole run; tests that change it must undo that.

    Everything up to the predictions ran with the pixel labels out of reach.
    """
    project = copy_project(tmp_path_factory.mktemp("project"))
    project.snakemake("--", f"results/{RUN}/manifest/manifest.csv")  # draws the demo's images
    predictions = [
        f"results/{RUN}/{what}/val/{n}-of-2.h5"
        for what in ("predictions", "refiner_predictions")
        for n in (1, 2)
    ]
    with truth_out_of_reach(project):
        project.snakemake("--", *predictions)
    (project.root / SCREEN).write_text(project.snakemake().stderr)
    return project
