"""A paper's table from records: the numbers in its cells, and the notes on them."""

import copy
import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from wsss.artifacts.checksum import json_with_checksum
from wsss.artifacts.errors import ArtifactError
from wsss.config.base import UPPER_BOUND
from wsss.config.errors import ConfigError
from wsss.refine.training.efficiency import Efficiency
from wsss.score.image_counts_file import read_image_counts
from wsss.score.metrics.bootstrap import seeds_interval
from wsss.score.metrics.confusion import Confusion
from wsss.score.papers.render import make_paper_table
from wsss.score.papers.table import load_table
from wsss.score.product import ProductName
from wsss.score.record import Record, read_records, write_records
from wsss.score.tables.efficiency import _PUBLISHED

from ..conftest import Run, build_run

ROOT = Path(__file__).parents[3]
LABELS = ["background", "cat", "boat", "tree"]
TABLE: dict[str, Any] = {
    "title": "A tiny table",
    "note": "What it is about.",
    "classes": LABELS,
    "columns": {
        "cam": {"title": "CAM", "product": ["cam", "affinity"], "split": "train"},
        "best": {
            "title": "CAM, best", "product": ["cam", "affinity"], "split": "train",
            "background": "best",
        },
        "crf": {
            "title": "labels", "product": ["refiner_prediction", "segmenter"],
            "protocol": "multi_crf", "split": "train", "metric": "per_class",
        },
        "test": {"title": "test", "split": "test"},
    },
    "rows": [
        {
            "name": "Ours", "preset": "demo-weclip",
            "takes": {"cam": "cam", "best": "cam", "crf": "segmenter"},
        },
        {
            "name": "Refined", "preset": "demo-weclip",
            "takes": {"cam": "affinity", "best": "affinity", "crf": "refiner_prediction"},
            "published": [
                {
                    "source": "Somebody 2020, table 3.",
                    "class_mean": "truth",
                    "values": {
                        "cam": 44.4, "test": 55.5,
                        "crf": {"mean": 40.0, "classes": [70.0, 50.0, 30.0, 10.0]},
                    },
                }
            ],
        },
    ],
}  # fmt: skip


def described(folder: Path, **changes: object) -> Path:
    path = folder / "tables" / "tiny.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(TABLE | changes, sort_keys=False))
    return path


def scored(run: Run, folder: Path, shift: int = 1, seed: int = 0) -> Path:
    """The scores of a run: CAMs, and predictions whose protocols differ."""
    names = ("single", "multi", "single_crf", "multi_crf")
    clean = {i: np.where(truth == 255, 0, truth) for i, truth in run.truth.items()}
    maps = {
        i: {name: np.roll(clean[i], shift + n, axis=1) for n, name in enumerate(names)}
        for i in clean
    }
    config = run.config.model_copy(update={"seed": seed, "name": f"run.seed-{seed}"})
    scores = folder / "scores"
    cams: tuple[ProductName, ...] = ("cam", "affinity")
    for product in cams:
        run.score(product, run.cam_shards(), scores / f"{product}.train.json", config=config)
    shard = run.write("prediction", "predictions", maps)
    run.score("segmenter", [shard], scores / "predictions.train.json", config=config)
    return folder


@pytest.fixture(scope="module")
def scored_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose scores are in its folder `results`."""
    run = build_run(tmp_path_factory.mktemp("scored"))
    scored(run, run.folder / "results")
    return run


@pytest.fixture
def run(scored_run: Run, tmp_path: Path) -> Run:
    """A copy of it that a test may change."""
    shutil.copytree(scored_run.folder, tmp_path, dirs_exist_ok=True)
    return replace(scored_run, folder=tmp_path)


def read(paths: list[Path]) -> tuple[list[str], dict[tuple[str, str], dict[str, str]]]:
    """Lines of the Markdown, and of the CSV by row and column."""
    rows = csv.DictReader(paths[1].open(encoding="utf-8"))
    return paths[0].read_text().splitlines(), {(r["row"], r["column"]): r for r in rows}


def shown(record: Record) -> str:
    ends = f"{100 * record.miou_low:.1f}–{100 * record.miou_high:.1f}"
    return f"{100 * record.miou:.1f} ({ends})"


def test_measured_stands_beside_published(run: Run) -> None:
    folder = run.folder / "results"
    paths = make_paper_table(
        described(run.folder), {"ours": [folder], "Refined": [folder]}, run.folder / "out"
    )
    assert [path.name for path in paths] == ["tiny.md", "tiny.csv", "tiny.html", "tiny.png"]
    lines, numbers = read(paths)
    assert lines[2] == (
        "| row | CAM, ours | CAM, published | CAM, best, ours | labels, ours | labels, published "
        "| test, published |"
    )
    fixed, best = read_records([folder / "scores/cam.train.json"])
    refined, refined_best = read_records([folder / "scores/affinity.train.json"])
    *_, crf = read_records([folder / "scores/predictions.train.json"])
    assert crf.protocol == "multi_crf"
    percents = [f"{100 * r.miou:.1f}" for r in (best, refined_best)]
    assert lines[4] == f"| Ours | {shown(fixed)} |  | {percents[0]} | {shown(crf)} |  |  |"
    # Nothing was scored of a refiner's prediction: that cell is empty.
    assert lines[5] == f"| Refined | {shown(refined)} | 44.4 | {percents[1]} |  | 40.0 ? | 55.5 |"
    assert float(numbers["Ours", "crf"]["ours"]) == pytest.approx(100 * crf.miou)
    assert float(numbers["Ours", "crf"]["ours boat"]) == pytest.approx(100 * crf.iou["boat"])
    assert numbers["Refined", "crf"]["published boat"] == "30.0"
    assert numbers["Refined", "crf"]["ours"] == ""
    assert numbers["Ours", "crf"]["interval_covers"] == "resampled images, one training"
    assert numbers["Ours", "crf"]["class_mean"] == "union"
    assert numbers["Refined", "crf"]["published_class_mean"] == "truth"
    assert any("table 3; mean over labels in the truth" in text for text in lines)
    assert any("mean over labels in truth or prediction (union > 0)" in text for text in lines)
    assert numbers["Refined", "cam"]["source"] == "Somebody 2020, table 3."
    assert ("Ours", "test") not in numbers
    table = [line for line in lines if line.startswith("| Refined, published |")]
    assert table == ["| Refined, published | 70.0 | 50.0 | 30.0 | 10.0 |"]
    assert any(line.startswith("| Ours, ours |") for line in lines)


def test_columns_of_contours_and_errors(run: Run) -> None:
    """The row at the best threshold has no label map, so its contours are not known."""
    folder = run.folder / "results"
    columns: Any = copy.deepcopy(TABLE["columns"])
    columns["cam"]["metric"] = columns["best"]["metric"] = "boundary_miou"
    columns["crf"]["metric"] = "false_negative"
    rows = [TABLE["rows"][0], {**TABLE["rows"][1], "published": []}]
    path = described(run.folder, columns=columns, rows=rows)
    _, numbers = read(make_paper_table(path, {"ours": [folder]}, run.folder / "o"))
    (fixed, _), (*_, crf) = (
        read_records([folder / f"scores/{name}.train.json"]) for name in ("cam", "predictions")
    )
    assert float(numbers["Ours", "cam"]["ours"]) == pytest.approx(100 * fixed.boundary_miou)
    assert float(numbers["Ours", "crf"]["ours"]) == pytest.approx(100 * crf.false_negative)
    assert numbers["Ours", "crf"]["low"] == ""
    assert ("Ours", "best") not in numbers


def test_a_table_states_images_weights_code_and_commit(run: Run) -> None:
    folder = run.folder / "results"
    for path in folder.glob("scores/*.json"):
        commit = {"commit": "0123456789abcdef0123456789abcdef01234567+"}
        write_records(path, [r.model_copy(update=commit) for r in read_records([path])])
    lines, _ = read(make_paper_table(described(run.folder), {"ours": [folder]}, run.folder / "o"))
    (line,) = (line for line in lines if line.startswith("- Ours, ours: "))
    (record, *_) = read_records([folder / "scores/cam.train.json"])
    for part in (
        "6 train images (truth: ", "seed 0", "variant corrected", "weights clip abc",
        f"code {record.provenance.code[:12]}", "commit 0123456789ab+.",
    ):  # fmt: skip
        assert part in line
    assert "- What it is about." in lines
    text = "Somebody 2020, table 3; mean over labels in the truth."
    assert f"- Refined, published (CAM; test; labels): {text}" in lines
    assert not any(line.startswith("- Refined, ours") for line in lines)


def test_rows_of_different_truths_say_so(run: Run) -> None:
    folder = run.folder / "results"
    path = folder / "scores/cam.train.json"
    write_records(
        path, [r.model_copy(update={"truth_rule": "crowd_void"}) for r in read_records([path])]
    )
    changed = copy.deepcopy(TABLE)
    for row, rule in zip(changed["rows"], ("weakclip", "voc_style"), strict=True):
        source = {"source": "Somebody 2020.", "values": {"test": 55.5}, "truth": rule}
        row["published"] = [source]
    table = described(run.folder, rows=changed["rows"])
    lines, numbers = read(make_paper_table(table, {"ours": [path]}, run.folder / "o"))
    assert lines[2].startswith("| row | Truth | CAM, ours |")
    assert lines[4].startswith("| Ours | ours crowd_void; published weakclip | ")
    assert lines[5].startswith("| Refined | voc_style | ")
    assert "- Ours, published (test): Somebody 2020; truth weakclip." in lines
    assert any(line.startswith("- Truth: ") and "crowd regions 255" in line for line in lines)
    assert numbers["Ours", "cam"]["truth_rule"] == "crowd_void"
    assert numbers["Ours", "test"]["published_truth"] == "weakclip"


def test_without_runs_only_published_values_remain(tmp_path: Path) -> None:
    paths = make_paper_table(described(tmp_path), {}, tmp_path / "out")
    lines, numbers = read(paths)
    assert lines[2] == "| row | CAM, published | labels, published | test, published |"
    assert lines[4] == "| Ours |  |  |  |"
    assert set(numbers) == {("Refined", "cam"), ("Refined", "test"), ("Refined", "crf")}


def test_several_seeds_are_mean_and_deviation(run: Run) -> None:
    folders = [scored(run, run.folder / f"r{n}", shift=n, seed=n) for n in (1, 2, 4)]
    files = {f"ours_seed-{n}": [folder] for n, folder in zip((1, 2, 4), folders, strict=True)}
    rows = [TABLE["rows"][0] | {"seeds": [1, 2, 4]}, TABLE["rows"][1]]
    lines, numbers = read(
        make_paper_table(described(run.folder, rows=rows), files, run.folder / "o")
    )
    records = [read_records([f / "scores/predictions.train.json"])[-1] for f in folders]
    values = [100 * r.miou for r in records if r.miou is not None]
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    line = numbers["Ours", "crf"]
    assert f"{mean:.1f} ± {deviation:.1f} ({float(line['low']):.1f}–" in lines[4]
    assert (float(line["ours"]), line["seeds"]) == (pytest.approx(mean), "3")
    counts = [
        read_image_counts(r, f / "scores/predictions.train.json")
        for r, f in zip(records, folders, strict=True)
    ]
    ends = seeds_interval(counts)
    assert (float(line["low"]), float(line["high"])) == pytest.approx(
        (100 * ends.low, 100 * ends.high)
    )
    assert line["interval_covers"] == "resampled images and seeds"
    assert any("the interval over resampled images and seeds" in text for text in lines)
    assert float(line["deviation"]) == pytest.approx(deviation)
    cats = [100 * r.iou["cat"] for r in records if r.iou["cat"] is not None]
    assert float(line["ours cat"]) == pytest.approx(np.mean(cats))
    assert any("seeds 1, 2, 4" in text for text in lines)


def test_a_score_over_a_list_of_images(run: Run) -> None:
    """Against a matrix counted over these images alone."""
    folder = run.folder / "results"
    ids = ["image1", "image3", "image4"]
    (run.folder / "list.txt").write_text("\n".join(ids) + "\n")
    columns: Any = copy.deepcopy(TABLE["columns"])
    columns["crf"]["images"] = str(run.folder / "list.txt")
    path = described(run.folder, columns=columns)
    lines, numbers = read(make_paper_table(path, {"ours": [folder]}, run.folder / "o"))
    confusion = Confusion(4)
    for image in ids:
        clean = np.where(run.truth[image] == 255, 0, run.truth[image])
        confusion.add(run.truth[image], np.roll(clean, 4, axis=1))
    line = numbers["Ours", "crf"]
    assert line["interval_covers"] == "resampled images, one training"
    assert float(line["ours"]) == pytest.approx(100 * confusion.metrics().miou)
    assert float(line["low"]) <= float(line["ours"]) <= float(line["high"])
    assert line["images"] == "3"
    assert any("3 train images" in text and "6 train images" in text for text in lines)
    (run.folder / "list.txt").write_text("image1\nother\n")
    with pytest.raises(ValueError, match=r"list\.txt has 1 images .'other'. that were not scored"):
        make_paper_table(path, {"ours": [folder]}, run.folder / "o")
    (run.folder / "list.txt").unlink()
    with pytest.raises(ArtifactError, match=r"row 'Ours', column 'crf': .*list\.txt: no such list"):
        make_paper_table(path, {"ours": [folder]}, run.folder / "o")


def test_records_must_differ_in_the_seed_alone(run: Run, make_run: Callable[..., Run]) -> None:
    path, first = described(run.folder), run.folder / "results"
    again = run.folder / "again"
    shutil.copytree(first, again)
    with pytest.raises(ValueError, match=r"row 'Ours', column 'cam': several records fit"):
        make_paper_table(path, {"ours": [first, again]}, run.folder / "o")
    other = make_run(masks={"background": {"rule": "constant", "value": 0.4}})
    second = scored(other, run.folder / "b", seed=1)
    with pytest.raises(ValueError, match="differ in more than their seed"):
        make_paper_table(path, {"ours": [first, second]}, run.folder / "o")


def test_an_upper_bound_fills_rows_of_full_supervision_alone(run: Run) -> None:
    folder = run.folder / "results"
    records = read_records([folder / "scores/predictions.train.json"])
    upper = [record.model_copy(update={"supervision": "masks"}) for record in records]
    file = run.folder / "upper.json"
    write_records(file, upper)
    rows = copy.deepcopy(TABLE["rows"])
    rows[0] |= {"supervision": "F", "group": "fully supervised"}
    table, plain = described(run.folder, rows=rows), run.folder / "results/scores/cam.train.json"
    lines, _ = read(make_paper_table(table, {"ours": [file]}, run.folder / "out"))
    assert any(line.startswith("| Ours | fully supervised | F | ") for line in lines)
    with pytest.raises(ValueError, match=r"run\.seed-0 has supervision: tags, the row says F"):
        make_paper_table(table, {"ours": [plain]}, run.folder / "out")
    with pytest.raises(ValueError, match=r"has supervision: masks, the row says nothing"):
        make_paper_table(described(run.folder), {"ours": [file]}, run.folder / "out")


def test_proposals_of_sam_fill_rows_of_that_supervision_alone(run: Run) -> None:
    folder = run.folder / "results"
    records = read_records([folder / "scores/predictions.train.json"])
    masks = {"masks": {"refine": "sam", "proposals": {"path": "here", "threshold": 0.5}}}
    provenance = records[0].provenance
    with_sam = provenance.model_copy(update={"config": provenance.config | masks})
    file = run.folder / "sam.json"
    write_records(file, [r.model_copy(update={"provenance": with_sam}) for r in records])
    rows = copy.deepcopy(TABLE["rows"])
    rows[0] |= {"supervision": "I+CLIP+SAM"}
    table, plain = described(run.folder, rows=rows), folder / "scores/predictions.train.json"
    lines, _ = read(make_paper_table(table, {"ours": [file]}, run.folder / "out"))
    assert any("| I+CLIP+SAM | " in line for line in lines)
    with pytest.raises(
        ValueError, match=r"without mask proposals .*, but the row.s supervision is I\+CLIP\+SAM"
    ):
        make_paper_table(table, {"ours": [plain]}, run.folder / "out")
    with pytest.raises(ValueError, match=r"with mask proposals .*supervision is empty; such runs"):
        make_paper_table(described(run.folder), {"ours": [file]}, run.folder / "out")


def test_files_that_are_not_records_are_refused(tmp_path: Path) -> None:
    path = described(tmp_path)
    with pytest.raises(ArtifactError, match=r"missing\.json: no such records"):
        make_paper_table(path, {"ours": [tmp_path / "missing.json"]}, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"empty: has no scores/\*\.json"):
        make_paper_table(path, {"ours": [tmp_path / "empty"]}, tmp_path)
    with pytest.raises(ConfigError, match="'our' is no row; did you mean 'ours'"):
        make_paper_table(path, {"our": []}, tmp_path)


def test_labels_of_another_data_set_are_refused(run: Run) -> None:
    folder = run.folder / "results"
    rows = [TABLE["rows"][0]]
    path = described(run.folder, rows=rows, classes=["background", "cat", "boat", "bush"])
    with pytest.raises(ValueError, match="have the labels tree that the table's classes lack"):
        make_paper_table(path, {"ours": [folder]}, run.folder / "o")


def test_the_cost_of_a_training_is_a_column(tmp_path: Path) -> None:
    """The shipped table and the code of `wsss efficiency` agree."""
    cost = Efficiency(
        method="WeakCLIP", trained_parameters=21_240_853, parameters=171_464_725,
        images_per_second=12.34, peak_memory=3 * 2**30, device="a GPU",
    )  # fmt: skip
    source = tmp_path / "refine" / "efficiency.json"
    source.parent.mkdir()
    source.write_text(json.dumps(json_with_checksum(cost.model_dump())))
    path = ROOT / "workflow/tables/efficiency.yaml"
    for given in (source, tmp_path):
        lines, numbers = read(make_paper_table(path, {"weakclip": [given]}, tmp_path / "out"))
        assert (
            "| WeakCLIP | 21.2 | 21.2 | 171.5 | 171.5 | 12.4 | 12.4 | 12.3 | 16.8 | 3.0 | 9.7 |"
            in lines
        )
        assert float(numbers["WeakCLIP", "memory"]["ours"]) == 3.0
        assert any(line.startswith("- WeakCLIP, ours: trained on a GPU") for line in lines)
    upper = cost.model_copy(update={"method": f"WeakCLIP, {UPPER_BOUND}"})
    source.write_text(json.dumps(json_with_checksum(upper.model_dump())))
    with pytest.raises(ValueError, match="has supervision: masks, the row says nothing"):
        make_paper_table(path, {"weakclip": [source]}, tmp_path / "out")
    table = load_table(path)
    rows = {row.name: row for row in table.rows}
    for name, *cells, _device in _PUBLISHED:
        row = rows[name.removesuffix(", published")]
        values = [row.value(key) for key in ("trained", "all", "share", "speed", "memory")]
        assert [f"{value[0]}" for value in values if value] == cells


def test_bars_are_drawn_for_every_column_of_classes(tmp_path: Path) -> None:
    path = ROOT / "workflow/tables/voc12_classes.yaml"
    *_, html, png = make_paper_table(path, {}, tmp_path)
    with Image.open(png) as picture:
        assert min(picture.size) > 800
        colours = {tuple(c) for c in np.asarray(picture.convert("RGB"))[::3].reshape(-1, 3)}
    assert {(0x44, 0x77, 0xAA), (0xEE, 0x66, 0x77)} <= colours  # two rows, a colour each
    assert "test: MCTformer, published" in html.read_text()
