"""Runs side by side, and the cost of a training next to the papers'."""

import json
import re
from csv import DictReader
from pathlib import Path

import numpy as np
import pytest

from wsss.artifacts.checksum import json_with_checksum
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.refine.training.efficiency import Efficiency
from wsss.score.image_counts_file import Scored, read_image_counts, read_scored
from wsss.score.metrics.bootstrap import seeds_interval
from wsss.score.record import Background, Record
from wsss.score.tables.comparison import make_comparison, rows_by_run
from wsss.score.tables.efficiency import make_efficiency
from wsss.score.tables.seeds import are_repeats, mean_text, without_seed
from wsss.score.tables.terminal import print_results

from ..conftest import PROVENANCE, Run
from .test_write import make_record


def _records() -> list[Record]:
    return [
        make_record(run="sweep"),
        make_record("masks", run="sweep.prompts-2", miou=0.5, report_mean=0.4),
        make_record("masks", run="sweep.prompts-4", miou=0.6),
        make_record("segmenter", run="sweep.prompts-4", split="val"),
    ]


def _scored(records: list[Record]) -> list[Scored]:
    return [Scored(Path("records.json"), record) for record in records]


def _lines(records: list[Record], folder: Path) -> list[str]:
    written = make_comparison(rows_by_run(_scored(records), "sweep"), folder, "sweep")
    return written[0].read_text().splitlines()


def test_runs_are_compared_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_by_run(_scored(_records()), "sweep")
    assert list(rows) == ["shared", "prompts-2", "prompts-4"]
    shared = rows.pop("shared")
    rows = {label: shared + records for label, records in rows.items()}
    markdown, csv, html = make_comparison(rows, tmp_path / "tables", "sweep")
    assert "# sweep: 2 runs" in markdown.read_text()
    lines = markdown.read_text().splitlines()
    assert "| run | CAM, train | pseudo mask, train | segmenter, val |" in lines
    assert "| prompts-2 |  | 50.0 |  |" in lines
    assert any(line.startswith("| prompts-4 |  | 60.0 | ") for line in lines)
    assert any(line.startswith("| shared | ") for line in lines)
    assert "| prompts-2 |  | 40.0 |  |" in lines  # the report classes
    assert "prompts-4,pseudo mask,train,0,corrected,0.6," in csv.read_text()
    assert "Mean IoU of the report classes" in html.read_text()
    for name in ("prompts-2", "prompts-4"):
        (tmp_path / name).mkdir()
    print_results(tmp_path)
    shown = capsys.readouterr().out
    assert "sweep: 2 runs" in shown
    assert re.search(r"^ prompts-2 +50\.0", shown, re.MULTILINE)
    assert re.search(rf"^table +{re.escape(str(html))}$", shown, re.MULTILINE)
    runs = re.findall(r"^runs +(.+)$", shown, re.MULTILINE)
    assert runs == [str(tmp_path / name) for name in ("prompts-2", "prompts-4")]
    assert "No table" not in shown


def test_rows_of_different_truths_are_in_columns_of_their_own(tmp_path: Path) -> None:
    records = [
        make_record(run="sweep.a", truth_rule="voc_style", miou=0.5),
        make_record(run="sweep.b", truth_rule="weakclip", miou=0.6),
    ]
    lines = _lines(records, tmp_path)
    assert "| run | CAM, train, truth voc_style | CAM, train, truth weakclip |" in lines
    assert "| a | 50.0 |  |" in lines
    assert "| b |  | 60.0 |" in lines


def test_runs_of_several_encoders_name_them(tmp_path: Path) -> None:
    def provenance(model: str, pretrained: str) -> Provenance:
        clip = {"clip": {"model": model, "pretrained": pretrained}}
        return PROVENANCE.model_copy(update={"config": clip})

    encoders = [("ViT-B-16", "openai"), ("ViT-B-16", "/weights/b16.pt"), ("a/tiny.json", "random")]
    records = [
        make_record(run=f"sweep.{index}", provenance=provenance(*names))
        for index, names in enumerate(encoders)
    ]
    lines = _lines(records, tmp_path)
    assert any(line.startswith("| run | Backbone | CAM, train |") for line in lines)
    for index, name in enumerate(["ViT-B-16, openai", "ViT-B-16, b16", "tiny, random"]):
        assert any(line.startswith(f"| {index} | {name} | ") for line in lines)
    assert not any("Backbone" in line for line in _lines(records[:1], tmp_path))


def test_a_second_encoder_is_part_of_the_backbone(tmp_path: Path) -> None:
    """A run's CAMs are of CLIP alone; what its refiner made says which DINOv2 took part."""
    clip = {"model": "ViT-B-16", "pretrained": "openai"}

    def record(size: str, product: str) -> Record:
        dino = {"dino": {"model": f"{size}_dinov2", "pretrained": "lvd142m"}}
        config = {"clip": clip} | (dino if product != "cam" else {})
        provenance = PROVENANCE.model_copy(update={"config": config})
        return make_record(product, run=f"sweep.{size}", provenance=provenance)

    records = [record(size, product) for size in ("small", "base") for product in ("cam", "masks")]
    lines = _lines(records, tmp_path)
    for size in ("small", "base"):
        name = f"ViT-B-16, openai + {size}_dinov2, lvd142m"
        assert any(line.startswith(f"| {size} | {name} | ") for line in lines)
    assert not any("Backbone" in line for line in _lines(records[:2], tmp_path))
    same = [record("small", "masks"), record("small", "cam")]
    assert not any("Backbone" in line for line in _lines(same, tmp_path))


def test_runs_with_proposals_of_sam_have_a_supervision_of_their_own(tmp_path: Path) -> None:
    def record(refine: str, product: str = "masks", **fields: object) -> Record:
        config = {"masks": {"refine": refine} if refine else {"crf": {}}}
        provenance = PROVENANCE.model_copy(update={"config": config})
        return make_record(product, run=f"sweep.{refine}", provenance=provenance, **fields)

    records = [
        record("crf"),
        record("sam"),
        make_record(run="sweep.sam"),
        record("sam", "segmenter"),
    ]
    assert [r.supervision_sign for r in records] == ["I", "I+SAM", "I", "I+SAM"]
    lines = _lines(records, tmp_path)
    assert any(line.startswith("| run | Supervision | pseudo mask, train |") for line in lines)
    assert any(line.startswith("| crf | I | ") for line in lines)
    assert any(line.startswith("| sam | I+SAM | ") for line in lines)
    assert any("Such rows do not compare with rows without it." in line for line in lines)
    rows = list(DictReader((tmp_path / "sweep.csv").open()))
    assert {row["run"]: row["supervision_sign"] for row in rows} == {"crf": "I", "sam": "I+SAM"}
    assert not any("Supervision" in line for line in _lines(records[:1], tmp_path))
    supervised = record("sam", supervision="masks")
    assert supervised.supervision_sign == "F"


def test_few_runs_with_many_products_become_columns(tmp_path: Path) -> None:
    records = [
        make_record(row, run=f"sweep.prompts-{prompts}", miou=prompts / 10, report_mean=0.1)
        for row in ("cam", "masks", "segmenter")
        for prompts in (2, 4)
    ]
    lines = _lines(records, tmp_path)
    assert lines.count("| product | prompts-2 | prompts-4 |") == 2  # also of the report classes
    assert "| pseudo mask, train | 20.0 | 40.0 |" in lines
    assert "| pseudo mask, train | 10.0 | 10.0 |" in lines


def _seeds(values: dict[tuple[int, int], float], **changes: object) -> list[Record]:
    """A record for each (prompts, seed)."""
    return [
        make_record(
            "masks", run=f"sweep.prompts-{prompts}_seed-{seed}", seed=seed, miou=value, **changes,
        )
        for (prompts, seed), value in values.items()
    ]  # fmt: skip


def test_seeds_become_mean_and_deviation(tmp_path: Path) -> None:
    values = {(2, 0): 0.50, (2, 1): 0.52, (2, 2): 0.57, (4, 0): 0.6, (4, 1): 0.64, (8, 0): 0.7}
    lines = _lines(_seeds(values), tmp_path)
    assert "| prompts-2_seed-1 | 52.0 |" in lines
    assert "| prompts-2, 3 seeds | 53.0 ± 3.6 |" in lines  # sqrt((9 + 1 + 16) / 2)
    assert "| prompts-4, 2 seeds | 62.0 ± 2.8 |" in lines
    assert not any(line.startswith("| prompts-8, ") for line in lines)
    assert any("differ in the seed alone" in line for line in lines)


def test_a_sweep_over_seeds_alone(tmp_path: Path) -> None:
    records = [make_record(run=f"sweep.seed-{n}", seed=n, miou=0.4 + n / 10) for n in range(3)]
    lines = _lines(records, tmp_path)
    assert "| 3 seeds | 50.0 ± 10.0 |" in lines


def test_rows_of_seeds_pool_images_and_seeds(run: Run) -> None:
    """One cell for a product that the seed changes, one for what was made before it."""
    files = []
    for seed in range(3):
        config = run.config.model_copy(update={"seed": seed, "name": f"run.seed-{seed}"})
        moved = {
            image: {"single": np.roll(np.where(truth == 255, 0, truth), 1 + 2 * seed, axis=1)}
            for image, truth in run.truth.items()
        }
        files.append(run.folder / f"{seed}.json")
        shard = run.write("prediction", "predictions", moved)
        run.score("segmenter", [shard], files[-1], config=config)
    scored = read_scored(files)
    ends = seeds_interval([read_image_counts(record, file) for file, record in scored])
    markdown, csv, _ = make_comparison(rows_by_run(scored, "run"), run.folder / "t", "run")
    text = mean_text([record.miou for _, record in scored])
    cell = f"{text} ({100 * ends.low:.1f}–{100 * ends.high:.1f})"
    assert f"| 3 seeds | {cell} |" in markdown.read_text()
    assert "95 % of the means over resampled images and seeds" in markdown.read_text()
    lines = {line["run"]: line for line in DictReader(csv.open())}
    assert (float(lines["3 seeds"]["miou_low"]), lines["3 seeds"]["seeds"]) == (ends.low, "3")
    assert float(lines["3 seeds"]["miou_deviation"]) == pytest.approx(
        np.std([record.miou for _, record in scored], ddof=1)
    )
    covers = {label: line["interval_covers"] for label, line in lines.items()}
    assert covers["3 seeds"] == "resampled images and seeds"
    assert covers["seed-1"] == "resampled images, one training"
    (run.folder / "1.images.h5").unlink()
    with pytest.raises(ArtifactError, match=r"1\.images\.h5: no such counts per image"):
        make_comparison(rows_by_run(scored, "run"), run.folder / "t", "run")


CONFIG = {
    "name": "sweep", "clip": {"template": ["a photo of a {}."]},
    "refine": {"method": "weclip", "train": {"lr": 1e-3, "iterations": 100}},
    "retrain": {"lr": 1e-4, "iterations": 50}, "masks": {"background": {"value": 1.0}},
}  # fmt: skip


@pytest.mark.parametrize(
    "key",
    [
        "clip.template", "refine.method", "refine.train.lr", "refine.train.iterations",
        "retrain.lr", "retrain.iterations", "masks.background.value",
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["provenance", "shard_provenance"])
def test_a_configured_value_makes_another_run(tmp_path: Path, key: str, field: str) -> None:
    """Whether scoring reads it or the stage that wrote the shards."""
    configs = [json.loads(json.dumps(CONFIG | {"name": f"s{n}"})) for n in range(2)]
    first, second = [
        record.model_copy(update={"provenance": PROVENANCE.model_copy(update={"config": config})})
        for record, config in zip(_seeds({(2, 0): 0.5, (2, 1): 0.6}), configs, strict=True)
    ]
    assert are_repeats([first, second])
    assert "| prompts-2, 2 seeds | 55.0 ± 7.1 |" in _lines([first, second], tmp_path)
    *sections, name = key.split(".")
    section = configs[1]
    for part in sections:
        section = section[part]
    section[name] = "another value"
    other = PROVENANCE.model_copy(update={"config": configs[1]})
    changed = other if field == "provenance" else (other,)
    records = [first, second.model_copy(update={field: changed})]
    assert not are_repeats(records)
    assert "| prompts-2, 2 seeds |  |" in _lines(records, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "published"}, {"images": 5}, {"truth": "there"}, {"chain": "patch_text"},
        {"method": "excel"}, {"protocol": "multi"}, {"split": "val"}, {"scales": (2.0,)},
        {"crf": True}, {"resamples": 3}, {"class_mean": "truth"},
        {"boundary_ratio": 0.5}, {"report_classes": ("cat",)},
        {"background": Background(rule="power", value=2.0, source="config")},
        {"weights": {"other.safetensors": "0123456789abcdef"}},
        {"weights": {"model.safetensors": "fedcba"}},
        {"provenance": PROVENANCE.model_copy(update={"code": "other"})},
        {"provenance": PROVENANCE.model_copy(update={"packages": {"torch": "1"}})},
        {"shard_provenance": ()},
    ],
    ids=str,
)  # fmt: skip
def test_every_other_field_distinguishes_runs(change: dict[str, object]) -> None:
    first, second = _seeds({(2, 0): 0.5, (2, 1): 0.6})
    assert are_repeats([first, second])
    assert not are_repeats([first, second.model_copy(update=change)])


def test_results_of_a_seed_do_not_distinguish_runs() -> None:
    first, second = _seeds({(2, 0): 0.5, (2, 1): 0.6})
    trained = PROVENANCE.model_copy(update={"weights": {"clip": "abc", "refiner": "01"}, "seed": 1})
    again = trained.model_copy(update={"weights": {"clip": "abc", "refiner": "02"}, "seed": 2})
    best = Background(rule="constant", value=0.3, source="best on this truth")
    change: dict[str, object] = {"commit": "1", "pixel_accuracy": 0.1, "background": best}
    first = first.model_copy(update=change | {"shard_provenance": (trained,)})
    change["background"] = best.model_copy(update={"value": 0.4})
    change |= {"miou_by_threshold": (0.2, 0.3), "foreground_by_score": ((4, 1),)}
    second = second.model_copy(update=change | {"commit": "2", "shard_provenance": (again,)})
    assert are_repeats([first, second])
    assert not are_repeats([first, first])


def test_scores_before_any_seed_are_in_the_row_of_the_seeds(tmp_path: Path) -> None:
    shared, other = make_record(run="sweep.a", miou=0.3), make_record(run="sweep.b", miou=0.2)
    masks = {
        record.run.removeprefix("sweep."): record for record in _seeds({(2, 0): 0.5, (2, 1): 0.6})
    }
    rows = {label: _scored([shared, record]) for label, record in masks.items()}
    rows["b"] = _scored([other])
    written = make_comparison(rows, tmp_path, "sweep")[0].read_text()
    assert "| prompts-2, 2 seeds | 30.0 | 55.0 ± 7.1 |" in written


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("prompts-2_seed-12", "prompts-2"),
        ("seed-3_prompts-2", "prompts-2"),
        ("svc/weclip/seed-1", "svc/weclip"),
        ("seed-0", ""),
        ("linseed-3", "linseed-3"),
        ("odd_", "odd_"),
    ],
)
def test_the_label_of_a_run_omits_the_seed(label: str, expected: str) -> None:
    assert without_seed(label) == expected


def test_one_value_has_no_deviation() -> None:
    assert mean_text([0.5]) == "50.0"
    assert mean_text([0.01, 0.03], "+") == "+2.0 ± 1.4"
    with pytest.raises(ValueError, match="no values"):
        mean_text([])


def test_our_cost_is_next_to_the_published_one(tmp_path: Path) -> None:
    cost = Efficiency(
        method="WeakCLIP", trained_parameters=21_240_853, parameters=171_464_725,
        images_per_second=12.34, peak_memory=3 * 2**30, device="a GPU",
    )  # fmt: skip
    source = tmp_path / "efficiency.json"
    source.write_text(json.dumps(json_with_checksum(cost.model_dump())))
    lines = make_efficiency(source, tmp_path)[0].read_text().splitlines()
    assert "| WeakCLIP, ours | 21.2 | 171.5 | 12.4 | 12.3 | 3.0 | a GPU |" in lines
    assert "| WeakCLIP, published | 21.2 | 171.5 | 12.4 | 16.8 | 9.7 |  |" in lines


@pytest.mark.parametrize("content", [None, "null", "{}", "no json"])
def test_files_without_a_cost_are_refused(tmp_path: Path, content: str | None) -> None:
    source = tmp_path / "efficiency.json"
    if content is not None:
        source.write_text(content)
    with pytest.raises(ArtifactError, match=r"efficiency.json: (no such|does not say|carries no)"):
        make_efficiency(source, tmp_path)
