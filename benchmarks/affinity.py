"""Kinds of affinity on held-out images: `python -m benchmarks.affinity voc-subset --out …`.

Makes the CAMs of every run of the preset `affinity` and scores them on the training images. Each
row then takes the blocks, the power and the constant background score that are best there, and with
these alone it is scored on the held-out images. Prints the mIoU on both (of the photographs over
background and the report classes), and on val the difference to attention with its 95 % interval
(bootstrap over images, paired). `--train` prints every run instead, on train. Nothing is random;
there are no seeds. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablation import ROOT
from wsss.artifacts.digest import digest_json
from wsss.artifacts.stage import STAGES
from wsss.config.base import overlay
from wsss.config.load import from_mapping, merged_yaml
from wsss.config.model import Config
from wsss.config.runs import MANY, expand_runs
from wsss.score.image_counts_file import read_image_counts, read_scored
from wsss.score.metrics.bootstrap import difference, mean_iou
from wsss.score.metrics.image_counts import CountTable
from wsss.score.product import ProductName

PRESETS = {"demo": "demo-clip-es", "voc-subset": "voc-subset"}
NONE, ATTENTION = "none", "attention"
HEADER = (
    "affinity",
    "blocks",
    "power",
    "background",
    "mIoU train",
    "mIoU val",
    "difference",
    "95 %",
)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=PRESETS)
    parser.add_argument("--source", choices=("grad_cam", "patch_text"), default="grad_cam")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--train", action="store_true", help="print every run, on train")
    options = parser.parse_args()
    plan = Plan(options.set, options.source, options.out)
    plan.prepare()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    by_row: dict[str, list[Measured]] = {}
    for label, config in plan.runs().items():
        by_row.setdefault(label.partition("_")[0], []).append(plan.on_train(config, "affinity"))
    if options.train:
        writer.writerows(train_table(by_row))
        return
    plain = plan.on_train(next(iter(plan.runs().values())), "cam")
    writer.writerows(val_table(plan, {NONE: [plain], **by_row}))


@dataclass(frozen=True)
class Measured:
    """A run on the training images."""

    config: Config
    product: ProductName
    miou: float
    threshold: float
    """The constant background score that is best there."""


@dataclass(frozen=True)
class Plan:
    """What is compared, and where."""

    set: str
    source: str
    out: Path

    def mapping(self) -> dict[str, Any]:
        """The preset with the source, scored with and without the best threshold."""
        files = (f"workflow/presets/{name}.yaml" for name in (PRESETS[self.set], "affinity"))
        mapping = merged_yaml(ROOT / "config.yaml", *(ROOT / file for file in files))
        report = mapping.get("score", {}).get("report_classes", [])
        changes = {
            "cams": {"source": self.source},
            "compute": {"workers": 1},
            "score": {"report_classes": ["background", *report] if report else []},
        }
        return overlay(mapping, changes)

    def runs(self) -> dict[str, Config]:
        """The runs of the preset by their label."""
        return expand_runs(self.mapping())

    def prepare(self) -> None:
        """The manifest."""
        from wsss.data.ingest.stage import ingest
        from wsss.demo.dataset import generate

        shared = {key: value for key, value in self.mapping().items() if key not in MANY}
        config = from_mapping(shared)
        if config.data.kind == "demo":
            train, val = config.data.demo_images
            generate(Path(config.data.root), train=train, val=val)
        if not (self.manifest / "manifest.csv").exists():
            ingest(self.manifest, **STAGES["ingest"].arguments(config))

    @property
    def manifest(self) -> Path:
        return self.out / "manifest"

    def on_train(self, config: Config, product: ProductName) -> Measured:
        """A run on train at its best threshold."""
        record = self._scored(config, product, "train")
        *_, best = (scored.record for scored in read_scored([record]))
        assert best.background is not None
        miou = best.report_mean if best.report_classes else best.miou
        assert miou is not None
        return Measured(config, product, miou, best.background.value)

    def on_val(self, run: Measured) -> CountTable:
        """Counts of a run on val, at the threshold of train."""
        fixed = {"masks": {"background": {"rule": "constant", "value": run.threshold}}}
        changed = from_mapping(overlay(run.config.model_dump(mode="json"), fixed))
        record = self._scored(changed, run.product, "val")
        first = read_scored([record])[0]
        return read_image_counts(first.record, first.file)

    def _scored(self, config: Config, product: ProductName, split: str) -> Path:
        """The file of the records; what is finished is not repeated."""
        from benchmarks.scoring import score
        from wsss.cams.stage import run as make_cams

        cams = [config.clip.effective(), config.cams.effective()]
        shard = self.out / "cams" / f"{digest_json(cams)[:12]}.{split}.h5"
        background = config.masks.background.model_dump() if split == "val" else None
        name = digest_json([*cams, background])[:12]
        record = self.out / "scores" / f"{name}.{product}.{split}.json"
        if not record.exists():
            if not shard.exists():
                arguments = STAGES["cams"].arguments(config)
                make_cams(self.manifest, split, (1, 1), shard, self.out / "cache", **arguments)
            score(product, config, self.manifest, split, [shard], record)
            print(f"{record.name}: done", file=sys.stderr, flush=True)
        return record


def train_table(by_row: Mapping[str, Sequence[Measured]]) -> Iterator[list[str]]:
    """Every run on train: a row per kind and temperature, a column per blocks and power."""
    columns = dict.fromkeys(_blocks(run) for runs in by_row.values() for run in runs)
    yield ["affinity", *(f"{blocks} blocks, power {power}" for blocks, power in columns)]
    for row, runs in by_row.items():
        yield [row, *(_percent(run.miou) for run in runs)]


def val_table(plan: Plan, by_row: Mapping[str, Sequence[Measured]]) -> Iterator[list[str]]:
    """Each row with what is best on train, on val."""
    chosen = {row: max(runs, key=lambda run: run.miou) for row, runs in by_row.items()}
    counts = {row: plan.on_val(run) for row, run in chosen.items()}
    labels = next(iter(chosen.values())).config.score.report_classes
    among = [_label(plan, name) for name in labels]
    yield list(HEADER)
    for row, run in chosen.items():
        affinity = run.config.cams.affinity
        blocks = str(affinity.last_blocks) if affinity.attention_blocks else ""
        cells = [blocks, str(affinity.power)] if run.product == "affinity" else ["", ""]
        cells += [f"{run.threshold:.2f}", _percent(run.miou)]
        cells.append(_percent(mean_iou(counts[row], among=among)))
        if row == ATTENTION:
            yield [row, *cells, "", ""]
            continue
        other = difference(counts[row], counts[ATTENTION], among=among)
        ends = f"{100 * other.interval.low:+.1f} … {100 * other.interval.high:+.1f}"
        yield [row, *cells, f"{100 * other.value:+.1f}", ends]


def _label(plan: Plan, name: str) -> int:
    from wsss.data.manifest_folder import load

    _, classes = load(plan.manifest)
    return ["background", *classes.names].index(name)


def _blocks(run: Measured) -> tuple[int, int]:
    return run.config.cams.affinity.last_blocks, run.config.cams.affinity.power


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


if __name__ == "__main__":
    main()
