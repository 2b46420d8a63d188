import csv
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from wsss.artifacts.errors import ArtifactError
from wsss.score.product import PRODUCTS
from wsss.score.record import Background, Record, numbers, write_records
from wsss.score.tables.rows import product_title, row_name
from wsss.score.tables.steps import BLOCKS
from wsss.score.tables.terminal import print_results, print_table
from wsss.score.tables.write import csv_text, make_table

from ..conftest import PROVENANCE

NAMES = ("background", "cat", "sea|side", "<b>tree</b>")


def make_record(product: str = "cam", **changes: object) -> Record:
    matrix = np.array([[50, 3, 0, 0], [7, 20, 0, 0], [1, 0, 3, 0], [0, 0, 0, 0]])
    fields: dict[str, object] = {
        "product": product, "protocol": "single", "method": "none",
        "run": "tiny", "chain": "grad_cam", "split": "train",
        "images": 6, "images_without_truth": 0, "truth": "here/SegmentationClass",
        "background": Background(rule="power", value=1.0, source="config"), "crf": False,
        "scales": (1.0,), "seed": 0, "variant": "corrected",
        "weights": {"model.safetensors": "0123456789abcdef"}, "provenance": PROVENANCE,
        "shard_provenance": (PROVENANCE,),
    }  # fmt: skip
    return Record.model_validate({**numbers(matrix, NAMES, []), **fields, **changes})


def records() -> list[Record]:
    best = Background(rule="constant", value=0.37, source="best on this truth", criterion="mIoU")
    end = {"background": None, "split": "val", "images": 4}
    return [
        make_record(),
        make_record(background=best),
        make_record(
            "masks",
            crf=True,
            coverage=0.8765,
            coverage_accuracy=0.9,
            miou_low=0.4412,
            miou_high=0.4731,
            resamples=1000,
        ),
        make_record("segmenter", **end),
        make_record("segmenter", protocol="multi_crf", crf=True, scales=(0.75, 1.0), **end),
    ]


@pytest.fixture
def table(tmp_path: Path) -> dict[str, str]:
    """The three files, the records coming from two of them."""
    rows = records()
    sources = [tmp_path / "a.json", tmp_path / "b.json"]
    write_records(sources[0], rows[:2])
    write_records(sources[1], rows[2:])
    paths = make_table(sources, tmp_path / "tables")
    return {path.suffix: path.read_text("utf-8") for path in paths}


def test_titles_name_the_refiner() -> None:
    scored = [make_record(product, method="excel") for product in PRODUCTS]
    assert [product_title(record) for record in scored] == [
        "centred blob", "CAM", "CAM + affinity", "seed", "ExCEL scores", "pseudo mask",
        "ExCEL prediction", "segmenter",
    ]  # fmt: skip


def test_rows_have_distinct_names() -> None:
    assert [row_name(record) for record in records()] == [
        "CAM", "CAM, best threshold", "pseudo mask", "segmenter",
        "segmenter, multi-scale + flip, CRF",
    ]  # fmt: skip


def test_csv_has_one_row_per_record_in_full_precision(table: dict[str, str]) -> None:
    rows = list(csv.DictReader(io.StringIO(table[".csv"])))
    in_blocks = [records()[index] for index in (0, 2, 3, 4, 1)]
    for row, record in zip(rows, in_blocks, strict=True):
        assert float(row["miou"]) == record.miou
        assert float(row["iou sea|side"]) == record.iou["sea|side"]
        assert row["iou <b>tree</b>"] == ""  # never seen: no IoU, and no zero
        assert row["coverage"] == ("0.8765" if record.product == "masks" else "")
    assert [row["miou_low"] for row in rows] == ["", "0.4412", "", "", ""]
    assert rows[4]["background_source"] == "best on this truth"
    assert rows[2]["background_value"] == ""


def test_markdown(table: dict[str, str]) -> None:
    lines = table[".md"].splitlines()
    assert lines[0] == "# tiny: 6 train images, 4 val images"
    miou = f"{100 * records()[0].miou:.1f}"
    assert lines[2:11] == [
        "| row | train | change | val |",
        "| --- | ---: | ---: | ---: |",
        "| **With the image's tags** |  |  |  |",
        f"| CAM | **{miou}** |  |  |",
        f"| pseudo mask (CRF) | **{miou}** (44.1–47.3) | +0.0 |  |",
        "| **Without tags** |  |  |  |",
        f"| segmenter |  |  | {miou} |",
        "| **Without tags, after a CRF** |  |  |  |",
        f"| segmenter, multi |  |  | {miou} |",
    ]
    assert "- Weights: model.safetensors (01234567)." in lines
    numbers = lines[lines.index("## All numbers of each row") :]
    rows = [line for line in numbers if line.startswith("|")]
    assert len(rows) == 2 + len(records())
    assert rows[2].startswith(f"| CAM | train | 6 | power 1 | no | 1 | {miou} |  |")
    assert f"| {miou} | 44.1–47.3 |" in rows[3]
    assert "> 0.37 (best)" in rows[6]
    assert "0.75, 1 + flip" in rows[5]
    for grid in (lines[2:13], rows):
        assert len({line.replace("\\|", "").count("|") for line in grid}) == 1


class _Cells(HTMLParser):
    """Collects the rows of all tables, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_html_is_escaped_and_self_contained(table: dict[str, str]) -> None:
    page = _Cells()
    page.feed(table[".html"])
    assert "<b>tree" not in table[".html"]
    assert not {"script", "link", "img"} & set(page.tags)
    assert "http" not in table[".html"]
    header = page.rows.index(["IoU of", "split", *NAMES])
    assert len(page.rows) == header + 2 * (1 + len(records()))
    assert page.rows[header + 1][-1] == ""
    blocks = [row for row in page.rows[:header] if len(row) == 1]
    assert blocks == [[block] for block in BLOCKS]
    assert {len(row) for row in page.rows[:header]} == {1, len(page.rows[0])}


def test_the_rule_of_the_truth_is_a_column_where_rows_differ(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_records(path, [make_record(truth_rule="voc_style")] * 2)
    assert "| truth |" not in make_table([path], tmp_path)[0].read_text()
    write_records(path, [make_record(truth_rule=rule) for rule in ("voc_style", "weakclip")])
    markdown, numbers, _ = make_table([path], tmp_path)
    assert "| row | split | images | truth | background |" in markdown.read_text()
    assert "| CAM, truth weakclip | " in markdown.read_text()
    rows = list(csv.DictReader(numbers.open(encoding="utf-8")))
    assert [row["truth_rule"] for row in rows] == ["voc_style", "weakclip"]


def test_tags_from_pixel_labels_are_told_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    config = {"data": {"tags": "masks"}}
    write_records(path, [make_record(provenance=PROVENANCE.model_copy(update={"config": config}))])
    markdown, numbers, html = make_table([path], tmp_path)
    warning = "WARNING. Tags were read from pixel labels (data.tags: masks)."
    for page in (markdown, html):
        assert warning in page.read_text()
    print_table(numbers)
    assert warning in capsys.readouterr().out
    write_records(path, [make_record()])
    assert "WARNING" not in make_table([path], tmp_path)[0].read_text()


def test_columns_without_a_number_are_left_out(tmp_path: Path) -> None:
    write_records(tmp_path / "a.json", records()[:1])
    make_table([tmp_path / "a.json"], tmp_path)
    text = (tmp_path / "table.md").read_text("utf-8")
    assert "| row | train |\n" in text
    (header,) = [line for line in text.splitlines() if "| mIoU |" in line]
    assert "covered" not in header


def test_a_row_without_a_number_is_left_out(tmp_path: Path) -> None:
    write_records(
        tmp_path / "a.json", [make_record(), make_record("masks", miou=None, split="val")]
    )
    markdown, numbers, _ = make_table([tmp_path / "a.json"], tmp_path)
    first_grid = markdown.read_text().split("\n\n")[1]
    assert "pseudo mask" not in first_grid
    assert "val" not in first_grid
    assert "pseudo mask" in numbers.read_text()


def _longest_names() -> list[Record]:
    """The longest rows that a run can have, with the widest numbers."""
    quality = {"noise": {"source": "clip", "splits": ["val"], "dropped": 0.0, "added": 0.0},
               "images": 4, "left_out": 0, "precision": 0.9, "recall": 0.8}  # fmt: skip
    return [
        make_record(product, method="weakclip", split=split, images=images, **changes)
        for product, changes in (
            ("masks", {"crf": True, "tag_quality": quality}),
            ("refiner_scores", {}),
            ("refiner_prediction", {"protocol": "multi", "scales": (0.75, 1.0)}),
            ("segmenter", {"crf": True}),
        )
        for split, images in (("train", 6), ("val", 4))
    ]


def test_terminal_fits_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = {"report_classes": ("cat",), "report_mean": 0.5}
    rows = [r.model_copy(update=report) for r in [*records(), *_longest_names()]]
    write_records(tmp_path / "a.json", rows)
    csv_path = make_table([tmp_path / "a.json"], tmp_path / "tables")[1]
    # Tables of real runs have intervals; these records have no counts per image.
    with csv_path.open(encoding="utf-8", newline="") as stream:
        numbers = list(csv.DictReader(stream))
    for row in numbers:
        if row["change"]:
            row |= {"change": "-0.105", "change_low": "-0.125", "change_high": "-0.1"}
    csv_path.write_text(csv_text(numbers), encoding="utf-8")
    buffer = io.StringIO()
    print_table(csv_path, Console(file=buffer, width=80))
    lines = buffer.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    table, _ = buffer.getvalue().split("Mean IoU of cat alone")
    rows = [line for line in table.splitlines() if line.startswith(" ")]
    labels = {row["label"] for row in numbers if row["miou"]}
    assert {line.strip().split("  ")[0] for line in rows[1:]} == labels  # none is wrapped
    for block in BLOCKS:
        assert block in lines
    assert "-10.5 (-12.5…-10.0)" in table
    words = buffer.getvalue().split("mIoU in percent:")[1].replace("\n", " ")
    explained = ("CAM", "pseudo mask", "CRF", "WeakCLIP prediction", "multi", "segmenter",
                 "CLIP's tags", "Threshold chosen on the truth", "change", "Bold")  # fmt: skip
    for word in explained:
        assert words.count(f"{word}: ") == 1
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "train.png").touch()
    print_results(tmp_path)
    printed = capsys.readouterr().out
    assert str(tmp_path / "pictures" / "train.png") in printed
    assert str(tmp_path / "tables" / "table.html") in printed


def test_folders_without_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArtifactError, match="holds no results"):
        print_results(tmp_path)
    with pytest.raises(ArtifactError, match="no such table"):
        print_table(tmp_path / "table.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ArtifactError, match="is no score table"):
        print_table(tmp_path / "other.csv")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "train.png").touch()
    print_results(tmp_path)  # photos without masks: pictures, no table
    assert "no ground truth" in capsys.readouterr().out
