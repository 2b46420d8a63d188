"""What a whole run would cost, from the jobs of its rehearsal."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rehearse.jobs import Job
from wsss.config.data import DataConfig
from wsss.config.model import Config
from wsss.config.paths import SHARED_VARIABLE
from wsss.data.check.coco import COUNTS as COCO_COUNTS
from wsss.data.datasets.coco import WITH_OBJECTS, instances_path, part_of
from wsss.data.datasets.registry import read_dataset
from wsss.data.datasets.voc import COUNTS as VOC_COUNTS
from wsss.data.datasets.voc import LISTS

FORMULA = (
    "core hours = (jobs x start-up + images x time per image, or steps x batch x time per crop) / "
    "3600. Times are those of one core; start-up is all that a job does outside of its loops. "
    "Memory of a training = memory at its first step + (peak - that) x batch / rehearsed batch; "
    "that of another job is its peak."
)
_LOG = re.compile(r"results/(?:(?P<run>.+)/)?logs/(?P<stage>[^/.]+)(?:[/.](?P<part>.+))?\.log")
_SHARD = re.compile(r"\.?\d+-of-\d+$")
_SPLIT = re.compile(r"(?:^|[/.])(train|val)(?:\.|$)")
_COCO_MASKS = "coco_masks"
_TRAININGS = ("refine_train", "retrain")


@dataclass(frozen=True)
class Estimate:
    """A job of a rehearsal, and what it stands for in the full run."""

    run: str
    stage: str
    """With its split or product."""
    seconds: float
    """Of the processor, in the rehearsal."""
    startup: float
    """That part of them that is outside of its loops."""
    per_item: float
    """Seconds of the processor per image; of a training per crop."""
    peak: int
    """Memory in the rehearsal, bytes."""
    items: int | None
    """Images or crops of the full run; None where they depend on the user's data."""
    jobs: int
    """In the full run."""
    hours: float | None
    """Core hours of the full run."""
    memory: int
    """Bytes of a job of the full run."""


def jobs_of(target: str, runs: Mapping[str, Config], jobs: Iterable[Job]) -> list[tuple[str, Job]]:
    """The jobs that a target needs, each with its run; empty where it belongs to none.

    COCO's masks are drawn for all runs and count for the first one.

    Args:
        target: a preset, or ``table_…``.
        runs: those whose products it needs, by their folder.
        jobs: all that were measured.
    """
    of_target = []
    of_coco = next((name for name, config in runs.items() if config.data.kind == "coco"), "")
    for job in jobs:
        run, stage, _ = _parts(job.log)
        if of_coco and stage.startswith(_COCO_MASKS):
            run = of_coco
        if run in runs or stage == target:
            of_target.append((run, job))
    return of_target


def estimate(
    run: str, job: Job, full: Config | None, reduced: Config | None, shared: Path
) -> Estimate:
    """What a job stands for.

    Args:
        run: its run, see `jobs_of`.
        job: of the rehearsal.
        full: the configuration of its run as the preset says; None: it belongs to none.
        reduced: that of the rehearsal.
        shared: the real WSSS_SHARED.
    """
    _, stage, part = _parts(job.log)
    here, items = _images(stage, part, full, reduced, shared)
    jobs = full.shards if full and _SHARD.search(part) else 1
    startup = max(job.seconds - sum(loop.seconds for loop in job.loops), 0.0)
    loops = [loop.seconds for loop in job.loops]
    per_item, memory, extra = sum(loops) / max(here, 1), job.peak, 0.0
    if stage in _TRAININGS and full and reduced and loops:
        of_images, first_step = sum(loops[:-1]) / max(here, 1), job.loops[-1].memory
        whole, short = (
            config.refine.train if stage == "refine_train" else config.retrain
            for config in (full, reduced)
        )
        per_item = loops[-1] / (short.iterations * short.batch)
        extra = 0.0 if items is None else items * of_images
        items = whole.iterations * whole.batch
        memory = first_step + max(job.peak - first_step, 0) * whole.batch // short.batch
    return Estimate(
        run=run,
        stage=f"{stage} {_SHARD.sub('', part)}".strip(),
        seconds=job.seconds,
        startup=startup,
        per_item=per_item,
        peak=job.peak,
        items=items,
        jobs=jobs,
        hours=None if items is None else (jobs * startup + items * per_item + extra) / 3600,
        memory=memory,
    )


def _parts(log: str) -> tuple[str, str, str]:
    """Run, stage, and split, shard or product of a log."""
    match = _LOG.fullmatch(log)
    assert match, log
    return match["run"] or "", match["stage"], match["part"] or ""


def _images(
    stage: str, part: str, full: Config | None, reduced: Config | None, shared: Path
) -> tuple[int, int | None]:
    """Images that a job covered, and those that it covers in the full run."""
    split = _SPLIT.search(part)
    if full is None or reduced is None:
        return 0, 0
    if stage.startswith(_COCO_MASKS) and split:
        instances = instances_path(Path(reduced.data.root), split[1])
        images = json.loads(instances.read_text(encoding="utf-8"))["images"]
        return len(images), COCO_COUNTS[split[1]][0]
    splits = [split[1]] if split else ["train"] if stage in _TRAININGS else ["train", "val"]
    candidates = read_dataset(reduced.data, reduced.variant).candidates
    counts = Counter[str](candidate.split for candidate in candidates)
    here = sum(counts[name] for name in splits)
    if full.data.kind == "folder":
        return here, None
    return here, sum(full_images(full.data, name, shared) for name in splits if counts[name])


def full_images(data: DataConfig, split: str, shared: Path) -> int:
    """Images of a split as the preset says, which are not the user's."""
    name = data.train_list if split == "train" else data.val_list
    if data.kind == "demo":
        return data.demo_images[split == "val"]
    if data.kind == "coco":
        # A training leaves out images without an object, whatever the list.
        with_objects = split == "train" or name.endswith(WITH_OBJECTS)
        return COCO_COUNTS[part_of(name) or split][with_objects]
    variable = f"${{{SHARED_VARIABLE}}}"
    if variable in data.root:
        path = Path(data.root.replace(variable, str(shared))) / LISTS / f"{name}.txt"
        return len(path.read_text(encoding="utf-8").split())
    return VOC_COUNTS[name]


def totals(estimates: Sequence[Estimate]) -> tuple[float, int]:
    """Core hours of all jobs, and bytes of the largest."""
    hours = sum(one.hours or 0.0 for one in estimates)
    return hours, max((one.memory for one in estimates), default=0)
