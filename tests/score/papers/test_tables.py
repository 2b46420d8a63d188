"""Tables as data: refused ones, the runs that they need, and the shipped ones."""

import csv
import itertools
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from wsss.config.base import overlay
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.score.papers.runs import table_runs
from wsss.score.papers.table import ClassValues, load_table, row_of

ROOT = Path(__file__).parents[3]
TABLES = sorted((ROOT / "workflow/tables").glob("*.yaml"))
PRESETS = ROOT / "workflow/presets"

SOURCE = re.compile(r"README|issue|log|\b(19|20)\d\d\b|later paper")
"""A paper with its year, a README, an issue, a training log."""
GOOD: dict[str, Any] = {
    "title": "A table",
    "classes": ["background", "cat"],
    "columns": {
        "seed": {
            "title": "seed", "product": ["affinity", "refiner_scores"], "split": "train",
            "background": "best",
        },
        "val": {"title": "val", "product": "refiner_prediction", "metric": "per_class"},
        "test": {"title": "test", "split": "test"},
    },
    "rows": [
        {
            "name": "Ours, again+", "preset": "demo-weclip", "seeds": [3, 5],
            "changes": {"refine": {"train": {"iterations": 7}}}, "takes": {"seed": "affinity"},
        },
        {
            "name": "Theirs",
            "published": [
                {
                    "source": "a paper",
                    "values": {"test": 50.0, "val": {"mean": 70.0, "classes": [90.0, 50.0]}},
                }
            ],
        },
    ],
}  # fmt: skip


ROW = {"name": "x", "takes": {"seed": "affinity"}}


def written(folder: Path, content: object) -> Path:
    path = folder / "tables" / "mine.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def changed(*keys: str | int, to: object) -> dict[str, Any]:
    """The good table with one value replaced, or added."""
    copy: Any = yaml.safe_load(yaml.safe_dump(GOOD))
    parent = copy
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = to
    return copy


def test_runs_are_preset_changes_and_seed(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD | {"changes": {"shards": 5, "refine": {"method": "none"}}})
    runs = table_runs(path, PRESETS)
    assert list(runs) == ["ours-again-plus_seed-3", "ours-again-plus_seed-5"]
    run = runs["ours-again-plus_seed-5"]
    assert run["name"] == "demo-weclip.iterations-7_method-none_seed-5_shards-5"
    assert (run["seed"], run["shards"]) == (5, 5)
    assert run["refine"] == {"method": "none", "train": {"iterations": 7}}
    assert run["retrain"] == {"enabled": False}  # of the preset
    assert from_mapping(run).refine.train.iterations == 7


def test_the_name_of_a_run_is_its_chain(tmp_path: Path) -> None:
    def name(**changes: object) -> str:
        rows = [
            {
                "name": "Ours",
                "preset": "demo-weclip",
                "takes": {"seed": "refiner_scores"},
                **changes,
            }
        ]
        (run,) = table_runs(written(tmp_path, GOOD | {"rows": rows}), PRESETS).values()
        return str(run["name"])

    assert name() == "demo-weclip"
    assert name(seeds=[4]) == "demo-weclip.seed-4"
    assert name(changes={"infer": {"scores": "cam"}}) == "demo-weclip.scores-cam"
    train = {"iterations": 7, "batch": 2, "warmup": 1, "checkpoint_every": 2, "min_lr": 0.0}
    many = {"refine": {"train": train | {"lr": 0.01}}}
    assert name(changes=many) == "demo-weclip.mine-ours"


def test_a_run_means_its_row(tmp_path: Path) -> None:
    table = load_table(written(tmp_path, GOOD))
    for label in ("Ours, again+", "ours-again-plus", "ours-again-plus_seed-3"):
        assert row_of(table, label) is table.rows[0]
    with pytest.raises(ConfigError, match="'thiers' is no row; did you mean 'theirs'"):
        row_of(table, "thiers")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("colums", to={}), "colums: unknown key; did you mean columns?"),
        (changed("rows", 0, "presets", to="x"), "rows.0.presets: unknown key; did you mean preset"),
        (changed("columns", "val", "product", to="mask"), "columns.val.product.0: expected"),
        (changed("columns", "val", "background", to="best"), "columns.val.background: only blob"),
        (changed("columns", "val", "metric", to="parameters"), "columns.val.metric: parameters is"),
        (changed("columns", "seed", "images", to="l.txt"), "columns.seed.images: rows at the best"),
        (changed("rows", 0, "takes", to={}), r"\(Ours, again\+\).takes.seed: say which, affinity"),
        (changed("rows", 0, "takes", "seed", to="cam"), "takes.seed: the column has affinity or"),
        (changed("rows", 0, "takes", "sead", to="cam"), "takes.sead: 'sead' is no column; did you"),
        (changed("rows", 0, "changes", "seed", to=4), "changes.seed: the table sets it"),
        (changed("rows", 0, "seeds", to=[1, 1]), "seeds: one comes twice"),
        (changed("rows", 1, "supervision", to="F"), "rows: '' mixes supervision F with other"),
        (changed("rows", 1, "name", to="ours again+"), "rows.1 .*name: another row is called so"),
        (changed("rows", 1, "published", to=[]), "rows.1 .*a row without a preset needs numbers"),
        (changed("rows", 1, "seeds", to=[1]),
         "rows.1 .*preset: overlays, changes, seeds and takes need one"),
        (changed("rows", 1, "published", 0, "values", "tset", to=1.0),
         "rows.1 .*published.0.values.tset: 'tset' is no column; did you mean 'test'"),
        (changed("rows", 1, "published", 0, "values", "test", to=101.0),
         "published.0.values.test: 101.0 is no percentage"),
        (changed("rows", 1, "published", 0, "values", "val", to=70.0),
         "published.0.values.val: give mean and classes"),
        (changed("rows", 1, "published", 0, "values", "val", "classes", to=[90.0]),
         "published.0.values.val: 1 numbers for 2 classes"),
        (changed("rows", 1, "published", 0, "values", "val", "mean", to=70.1),
         "published.0.values.val: the mean of the classes is 70.00, not 70.1"),
        (changed("rows", 1, "published", 0, "source", to=""), "rows.1.published.0.source: "),
        (changed("rows", 1, "published", 0, "crf", to=True),
         "published.0.values.val: is at CRF, the column's protocol is single"),
        (changed("rows", 1, "supervision", to="I+X"), "rows.1.supervision: 'I\\+X' is none"),
        ({**GOOD, "rows": [{**GOOD["rows"][1], "name": name, "group": group}
                           for name, group in (("a", "one"), ("b", "two"), ("c", "one"))]},
         "rows: 'one' is scattered"),
        ([1], "expected keys with values"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_and_key(tmp_path: Path, content: object, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConfigError, match=rf"(?s)mine\.yaml: not a valid table.*{message}"):
        load_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("rows", to=[ROW | {"preset": "demo-weclip", "supervision": "F"}]),
         "its run has supervision: tags, the row says F"),
        (changed("rows", to=[ROW | {"preset": "demo-supervised"}]),
         "its run has supervision: masks, the row says nothing; F is for masks"),
        (changed("rows", 0, "preset", to="demo-weclib"), "no preset; did you mean 'demo-weclip'"),
        (changed("rows", 0, "preset", to="weakclip-prompts"), "is several runs .sweep."),
        (changed("rows", 0, "changes", "refine", "trian", to={}),
         r"(?s)mine.yaml, row 'Ours, again\+'.*did you mean refine.train"),
    ],
)  # fmt: skip
def test_an_impossible_run_is_reported(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        table_runs(written(tmp_path, content), PRESETS)


def test_a_missing_or_invalid_yaml_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_table(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml: is not valid YAML"):
        load_table(tmp_path / "bad.yaml")


def test_tables_are_shipped() -> None:
    assert {path.stem for path in TABLES} >= {
        "voc12_main", "coco14_main", "voc12_classes", "weakclip_prompts", "weakclip_temperature",
        "excel_components", "weclip_rfm", "efficiency", "demo_matrix",
    }  # fmt: skip


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_shipped_table_loads_and_its_runs_are_valid(path: Path) -> None:
    """Every preset exists; what the rows make of them is a valid configuration."""
    table, runs = load_table(path), table_runs(path)
    assert len({run["name"] for run in runs.values()}) == len(runs)
    assert runs
    base = yaml.safe_load((ROOT / "config.yaml").read_text())
    for run in runs.values():
        assert from_mapping(overlay(base, run)).name == run["name"]
    for row in table.rows:
        for published in row.published:
            assert published.source.rstrip().endswith(".")
            assert SOURCE.search(published.source), published.source
            assert not re.search(r"\b(spec|specs|notes|slides)\b", published.text)


def test_every_row_of_weakclips_comparison_is_in_the_main_tables() -> None:
    path = ROOT / os.environ.get("WSSS_SHARED", "../shared") / "published_rows.csv"
    if not path.is_file():
        pytest.skip("WSSS_SHARED has no published_rows.csv")
    names = {
        "DeepLabV2": "Fully supervised, DeepLabV2-R101",
        "WR38": "Fully supervised, WideResNet38",
    }
    backbones = {
        "ResNet38": "DeepLabV1-ResNet38",
        "DeiT-S": "Segmenter DeiT-S",
        "MiT-B2": "SegFormer MiT-B2",
    }
    with path.open() as stream:
        for quoted in csv.DictReader(stream):
            table = load_table(ROOT / f"workflow/tables/{quoted['dataset']}_main.yaml")
            name, backbone = quoted["method"], quoted["backbone"]
            longer = (names.get(name, name), f"{name}, {backbones.get(backbone)}")
            (row,) = [row for row in table.rows if row.name in longer]
            assert row.backbone == backbone
            # the same, or more: the comparison counts no model that was trained on other data
            assert row.supervision.startswith(quoted["supervision"])
            numbers = {key: row.published_mean(key) for key in ("val", "test") if quoted[key]}
            if quoted["val"] == "41.3":  # of ToCo, whose README has another number
                assert "41.3 in the comparison" in row.published[0].note
                continue
            assert numbers == {key: float(quoted[key]) for key in numbers}, name


@pytest.mark.parametrize(
    ("dataset", "name", "numbers"),
    [
        ("voc12", "WeakTr", {"seed": 69.4}),
        ("voc12", "DHR", {"val": 79.6}),
        ("voc12", "SeCo", {"val": 74.0, "test": 73.8}),
        ("voc12", "MoRe", {"val": 76.4, "test": 75.0}),
        ("voc12", "ToCo", {"val": 71.1, "test": 72.2}),
        ("voc12", "DuPL", {"val": 72.2, "test": 71.6}),
        ("voc12", "DuPL, ImageNet-21k", {"val": 73.3, "test": 72.8}),
        ("voc12", "FMA-WSSS", {"val": 83.1, "test": 81.6}),
        ("coco14", "WeakTr, Segmenter DeiT-S", {"seed": 42.6, "masks": 48.9}),
        ("coco14", "SeCo", {"val": 46.7}),
        ("coco14", "MoRe", {"val": 47.4}),
        ("coco14", "ToCo", {"val": 42.2}),
        ("coco14", "DuPL", {"val": 43.5}),
        ("coco14", "DuPL, ImageNet-21k", {"val": 44.6}),
        ("coco14", "FMA-WSSS", {"val": 55.4}),
    ],
)
def test_numbers_of_papers_and_readmes(dataset: str, name: str, numbers: dict[str, float]) -> None:
    """Those that later papers quote differently, or of another split."""
    table = load_table(ROOT / f"workflow/tables/{dataset}_main.yaml")
    (row,) = [row for row in table.rows if row.name == name]
    assert {key: row.published_mean(key) for key in numbers} == numbers


@pytest.mark.parametrize("name", ["voc12_main", "coco14_main"])
def test_rows_of_a_group_have_comparable_supervision(name: str) -> None:
    """Rows with other kinds of labels, or more models than CLIP, stand apart."""
    extra = {"multi-stage, image labels": {"I"}, "single-stage, image labels": {"I"},
             "multi-stage, CLIP": {"I+CLIP"}, "single-stage, CLIP": {"I+CLIP"},
             "saliency maps": {"I+S"}, "boxes": {"I+B"}, "fully supervised": {"F"}}  # fmt: skip
    for row in load_table(ROOT / f"workflow/tables/{name}.yaml").rows:
        if row.group == "more models":
            assert {"SAM", "DINO", "SD"} & set(row.supervision.split("+"))
        else:
            assert {row.supervision} == extra[row.group]


def test_every_preset_and_row_of_coco_is_scored_on_the_same_images() -> None:
    """On the 40,137 images of val that have an object, and by the truth of its paper."""
    base = yaml.safe_load((ROOT / "config.yaml").read_text())
    presets = {path.stem: yaml.safe_load(path.read_text()) for path in PRESETS.glob("*.yaml")}
    runs = {f"preset {name}": from_mapping(overlay(base, p)) for name, p in presets.items()}
    for table in TABLES:
        for label, run in table_runs(table).items():
            runs[f"{table.stem}: {label}"] = from_mapping(overlay(base, run))
    of_coco = {where: run.data for where, run in runs.items() if run.data.kind == "coco"}
    assert len(of_coco) >= 5 + 6  # five whole presets, six rows of the main table
    for where, data in of_coco.items():
        assert data.val_list in {"val-with-objects", ""}, where
        assert data.coco_truth == ("weakclip" if "weakclip" in where else "voc_style"), where


def test_published_truths_of_coco_are_those_of_the_presets() -> None:
    """So that a row compares our number with one on the same label maps."""
    table = load_table(ROOT / "workflow/tables/coco14_main.yaml")
    runs = table_runs(ROOT / "workflow/tables/coco14_main.yaml")
    stated = 0
    for row in table.rows:
        for published, label in itertools.product(row.published, row.labels):
            if published.truth:
                assert runs[label]["data"]["coco_truth"] == published.truth
                stated += 1
    assert stated == 6


def test_published_classes_have_the_published_mean() -> None:
    """Against the headline of the main table, which is written down apart."""
    classes = load_table(ROOT / "workflow/tables/voc12_classes.yaml")
    headline = {row.name: row for row in load_table(ROOT / "workflow/tables/voc12_main.yaml").rows}
    compared = 0
    for row in classes.rows:
        for key in ("val", "test"):
            value = row.value(key)
            if value is None:
                continue
            assert isinstance(value[0], ClassValues)
            headline_value = headline[row.name].value(key)
            assert sum(value[0].classes) / 21 == pytest.approx(headline_value[0], abs=0.06)
            compared += 1
    assert compared == 4


@pytest.mark.parametrize("name", ["weakclip-prompts", "weakclip-temperature"])
def test_ablation_tables_run_what_the_sweeps_run(name: str) -> None:
    sweep = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())["sweep"]
    ((key, values),) = sweep.items()
    option = key.rpartition(".")[2]
    runs = table_runs(ROOT / f"workflow/tables/{name.replace('-', '_')}.yaml").values()
    assert [run["refine"]["weakclip"][option] for run in runs] == values


def test_component_table_runs_what_the_preset_runs() -> None:
    preset = yaml.safe_load((PRESETS / "excel-components.yaml").read_text())
    table = ROOT / "workflow/tables/excel_components.yaml"
    rows, runs = load_table(table).rows, list(table_runs(table).values())
    assert [row.overlays for row in rows[:5]] == [[f"excel-components:{r}"] for r in preset["runs"]]
    assert [run["name"] for run in runs[:3]] == [
        "voc12-excel.baseline", "voc12-excel.SVC", "voc12-excel.SVC-TSE",
    ]  # fmt: skip
    assert runs[3]["refine"]["method"] == preset["runs"]["SVC+LVC"]["refine"]["method"]
    assert runs[3]["refine"]["train"]["iterations"] == 30_000  # of the preset below
    assert {run["infer"]["scores"] for run in runs[:5]} == {preset["infer"]["scores"]}


def test_a_row_lays_further_presets_over_its_own(tmp_path: Path) -> None:
    def runs(*overlays: str) -> dict[str, dict[str, Any]]:
        content = changed("rows", 0, "overlays", to=list(overlays))
        content["rows"][0]["changes"] = {"shards": 3}
        return table_runs(written(tmp_path, content), PRESETS)

    run = runs("demo-excel", "excel-components:SVC+LVC")["ours-again-plus_seed-3"]
    assert run["cams"]["affinity"]["box_threshold"] == 0.79
    assert run["cams"]["patch_text"]["tse"] == {"form": "off"}
    assert run["name"] == "demo-weclip.demo-excel_SVC-LVC_seed-3_shards-3"
    with pytest.raises(ConfigError, match=r"'SVC\+' is no run of .*; did you mean 'SVC"):
        runs("excel-components:SVC+")
    with pytest.raises(ConfigError, match="name one of them, excel-components:baseline"):
        runs("excel-components")
