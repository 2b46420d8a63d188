"""What each correction of a method gains: `python -m benchmarks.ablation weclip demo --out …`.

Trains the published variant, the corrected one, and the corrected one with one correction reverted
at a time, with several seeds each, and prints mean and standard deviation of the mIoU of

- the scores of the training images (decoder among the image's tags, no CRF),
- the pseudo masks of the training images (the same with the CRF, `--crf`),
- the prediction of the held-out images without tags (all scales, mirroring), without and with CRF
  (`--crf`); of the photographs every third, at one scale with mirroring.

Finished runs stay in the folder and are not repeated, so an interrupted table resumes.
`--jobs 2` trains two at a time, one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ablation_rows import ROWS
from wsss.artifacts.stage import STAGES
from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.score.record import Record
from wsss.score.tables.seeds import mean_text

ROOT = Path(__file__).parents[1]
SETS = ("demo", "voc-subset")
Measured = dict[int, dict[str, float]]
REPORT = " of the report classes"
MEASURES = ("scores train", "mask train", "prediction val", "prediction val, CRF")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=ROWS)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", help="(default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--crf", action="store_true", help="also with the CRF, which takes long")
    parser.add_argument("--single", nargs=2, metavar=("ROW", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    plan = Plan(options.method, options.set, options.out)
    options.rows = options.rows or list(ROWS[options.method])
    if unknown := set(options.rows) - set(ROWS[options.method]):
        parser.error(f"no row {', '.join(unknown)}; rows are {', '.join(ROWS[options.method])}")
    if options.single:
        run(plan, options.single[0], int(options.single[1]), crf=options.crf)
        return
    prepare(plan, options.rows)
    tasks = [(row, seed) for seed in options.seeds for row in options.rows]
    tasks = [t for t in tasks if not _result(options.out, *t, crf=options.crf).exists()]
    _in_parallel(plan, tasks, options.jobs, crf=options.crf)
    print(f"mIoU\n\n{table(options.out, options.rows, options.seeds)}")
    if configuration(plan, "corrected", 0).score.report_classes:
        report = table(options.out, options.rows, options.seeds, REPORT)
        print(f"\nmean IoU of the report classes\n\n{report}")


@dataclass(frozen=True)
class Plan:
    """What is compared, and where."""

    method: str
    set: str
    out: Path

    @property
    def preset(self) -> Path:
        return ROOT / f"workflow/presets/{self.set}-{self.method}.yaml"


def configuration(plan: Plan, row: str, seed: int, *, crf: bool = False) -> Config:
    """The configuration of one run."""
    mapping = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    run: dict[str, Any] = {"name": "ablation", "seed": seed, "compute": {"workers": 1}}
    run |= {"score": {"cam_thresholds": "fixed"}, "infer": {"crf": crf}}
    run |= {"refine": {"train": {"threads": 1}}}  # several runs share the cores
    preset = yaml.safe_load(plan.preset.read_text(encoding="utf-8"))
    change = ROWS[plan.method][row]
    if plan.set == "voc-subset":  # larger images: fewer of them, and one scale with mirroring
        val = {"data": {"val_list": str(plan.out / "val.txt")}, "infer": {"scales": [1.0]}}
        run = overlay(run, val)
        if preset.get("cams", {}).get("source") == "external":
            seeds = {"cams": {"external": {"path": str(plan.out / "seeds-npy")}}}
            run = overlay(run, seeds)
    if change.get("seeds", {}) == {"values": None}:
        values = overlay(mapping, preset)["seeds"]["values"]
        change = {"seeds": {"values": [statistics.mean(values)]}}
    if change.get("refine", {}).get("excel", {}).get("self_training_start") == "three quarters":
        steps = overlay(mapping, preset)["refine"]["train"]["iterations"]
        change = {"refine": {"excel": {"self_training_start": 3 * steps // 4}}}
    if change.get("infer", {}).get("window") == "crop":
        crop = overlay(mapping, preset)["refine"]["train"]["crop"]
        change = {"infer": {"window": crop, "stride": 2 * crop // 3}}
    for layer in (preset, run, change):
        mapping = overlay(mapping, layer)
    return from_mapping(mapping)


def prepare(plan: Plan, rows: Sequence[str]) -> None:
    """Manifest, and the CAMs that the rows need."""
    from wsss.cams.stage import run as make_cams
    from wsss.data.ingest.stage import ingest
    from wsss.demo.dataset import generate

    config, out = configuration(plan, "corrected", 0), plan.out
    if plan.set == "voc-subset":
        root = expand_path(config.data.root)
        ids = (root / "ImageSets/Segmentation/val.txt").read_text(encoding="utf-8").split()
        out.mkdir(parents=True, exist_ok=True)
        (out / "val.txt").write_text("\n".join(ids[::3]) + "\n", encoding="utf-8")
        folder = out / "seeds-npy"
        if config.cams.source == "external" and not folder.exists():
            command = [sys.executable, str(root / "seeds/expand.py"), str(folder)]
            subprocess.run(command, check=True)
    if plan.set == "demo":
        train, val = config.data.demo_images
        generate(Path(config.data.root), train=train, val=val)
    if not (out / "manifest/manifest.csv").exists():
        ingest(out / "manifest", variant=config.variant, data=config.data, compute=config.compute)
    for row in rows:
        config = configuration(plan, row, 0)
        if not (path := cams_of(out, config)).exists():
            arguments = STAGES["cams"].arguments(config)
            make_cams(out / "manifest", "train", (1, 1), path, out / "cache", **arguments)


def cams_of(out: Path, config: Config) -> Path:
    """The CAM shard for a configuration."""
    from wsss.artifacts.digest import digest_json

    sections = [config.clip.model_dump(mode="json"), config.cams.model_dump(mode="json")]
    return out / f"cams-{digest_json(sections)[:12]}.h5"


def training_folder(out: Path, config: Config) -> Path:
    """The folder of a training."""
    from wsss.artifacts.digest import digest_json

    sections = [
        getattr(config, part).model_dump(mode="json")
        for part in ("clip", "cams", "seeds", "refine")
    ]
    return out / f"training-{digest_json(sections)[:12]}-{config.seed}"


def run(plan: Plan, row: str, seed: int, *, crf: bool) -> None:
    """Train and score once; rows that change the evaluation alone share the training."""
    import torch

    from benchmarks.scoring import score
    from wsss.masks.seeds_stage import run as make_seeds
    from wsss.masks.stage import run as make_masks
    from wsss.refine import stage
    from wsss.refine.predict import predict

    torch.set_num_threads(1)
    config, out = configuration(plan, row, seed, crf=crf), plan.out
    training, folder = training_folder(out, config), out / _slug(row, seed)
    manifest, cache, cams = out / "manifest", out / "cache", cams_of(out, config)
    checkpoint = training / "checkpoint.safetensors"
    if not checkpoint.exists():
        seeds = []
        if config.refine.needs_seeds:
            seeds = [training / "seeds.h5"]
            arguments = STAGES["seeds"].arguments(config)
            make_seeds(manifest, "train", cams, seeds[0], training / "png", **arguments)
        files = (checkpoint, training / "loss.csv", training / "work")
        arguments = STAGES["refine_train"].arguments(config)
        stage.train(manifest, [cams], *files, cache, seeds, **arguments)
    scores, predictions = folder / "scores.h5", folder / "predictions.h5"
    arguments = STAGES["refine_apply"].arguments(config)
    stage.apply(manifest, "train", cams, checkpoint, scores, cache, **arguments)
    arguments = STAGES["refine_predict"].arguments(config)
    predict(manifest, "val", (1, 1), checkpoint, predictions, cache, **arguments)
    records: dict[str, Record] = {}
    record = folder / "record.json"
    records["scores train"] = score("refiner_scores", config, manifest, "train", [scores], record)[
        0
    ]
    if crf:
        arguments = STAGES["masks"].arguments(config)
        make_masks(manifest, scores, folder / "masks.h5", folder / "png", **arguments)
        masks = [folder / "masks.h5"]
        records["mask train"] = score("masks", config, manifest, "train", masks, record)[0]
    for row_record in score("refiner_prediction", config, manifest, "val", [predictions], record):
        if row_record.protocol.startswith("multi"):
            measure = "prediction val, CRF" if row_record.crf else "prediction val"
            records[measure] = row_record
    values = {measure: of_measure.miou for measure, of_measure in records.items()}
    values |= {
        f"{measure}{REPORT}": of_measure.report_mean
        for measure, of_measure in records.items()
        if of_measure.report_classes
    }
    _result(out, row, seed, crf=crf).write_text(json.dumps(values) + "\n", encoding="utf-8")


def table(out: Path, rows: Sequence[str], seeds: Sequence[int], suffix: str = "") -> str:
    """Mean ± standard deviation over the seeds, in percent, as Markdown.

    In brackets the mean and deviation of the difference from the corrected row, seed by seed: runs
    of one seed start from the same weights and see the same crops, so it says more than the means.
    """
    lines = [f"| | {' | '.join(MEASURES)} |", "|---|" + "---:|" * len(MEASURES)]
    base = _measured(out, "corrected", seeds, suffix)
    for row in rows:
        measured = _measured(out, row, seeds, suffix)
        cells = [_cell(measured, base, measure) for measure in MEASURES]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured(
    out: Path, row: str, seeds: Sequence[int], suffix: str
) -> dict[int, dict[str, float]]:
    """The measurements of a row, by seed; a run with the CRF has the others as well."""
    measured = {}
    for seed in seeds:
        paths = [_result(out, row, seed, crf=crf) for crf in (True, False)]
        if path := next((path for path in paths if path.exists()), None):
            values = json.loads(path.read_text(encoding="utf-8"))
            measured[seed] = {
                k.removesuffix(suffix): v for k, v in values.items() if k.endswith(suffix)
            }
    return measured


def _cell(measured: Measured, base: Measured, measure: str) -> str:
    by_seed = {seed: values[measure] for seed, values in measured.items() if measure in values}
    differences = [v - base[s][measure] for s, v in by_seed.items() if measure in base.get(s, {})]
    if not by_seed:
        return ""
    text = mean_text(list(by_seed.values()))
    return f"{text} ({mean_text(differences, '+')})" if any(differences) else text


def _slug(row: str, seed: int) -> str:
    return f"{row.replace(' ', '-').replace(',', '')}-{seed}"


def _result(out: Path, row: str, seed: int, *, crf: bool) -> Path:
    return out / f"{_slug(row, seed)}{'-crf' if crf else ''}.json"


def _in_parallel(plan: Plan, tasks: Sequence[tuple[str, int]], jobs: int, *, crf: bool) -> None:
    """Each run in a separate process; runs that share a training run one after the other."""
    waiting = [
        (row, seed, training_folder(plan.out, configuration(plan, row, seed)))
        for row, seed in tasks
    ]
    running: dict[int, tuple[str, int, Path]] = {}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = {}
    while waiting or running:
        busy = {training for _, _, training in running.values()}
        ready = next((task for task in waiting if task[2] not in busy), None)
        if ready and len(running) < jobs:
            waiting.remove(ready)
            row, seed, _ = ready
            arguments = [plan.method, plan.set, "--out", str(plan.out), "--single", row, str(seed)]
            command = [sys.executable, "-m", "benchmarks.ablation", *arguments]
            command += ["--crf"] if crf else []
            process = subprocess.Popen(command, env=environment, cwd=ROOT)
            processes[process.pid] = process
            running[process.pid] = ready
            continue
        pid, _ = os.wait()
        row, seed, _ = running.pop(pid)
        finished = _result(plan.out, row, seed, crf=crf).exists()
        print(f"{row}, seed {seed}: {'done' if finished else 'failed'}", flush=True)


if __name__ == "__main__":
    main()
