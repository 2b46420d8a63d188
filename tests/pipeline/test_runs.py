"""Which run makes what several runs use."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.builders import CLIP_ES
from wsss.config.errors import ConfigError
from wsss.config.load import merged_yaml
from wsss.pipeline.products import PRODUCTS, SCORED
from wsss.pipeline.runs import Runs

CAMS = {"grad-cam": {}, "svc": {"cams": {"source": "patch_text"}}}
REFINE = {"none": {"refine": {"method": "none"}}, "excel": {"refine": {"method": "excel"}}}
RETRAIN = {"b0": {}, "b1": {"retrain": {"model": "segformer-b1"}}}


def _producers(runs: Runs, product: str) -> dict[str, str]:
    return {name: runs.producer(product, name) for name in runs.final}


def test_a_single_run_produces_everything_itself() -> None:
    runs = Runs({"name": "a"})
    assert list(runs) == runs.final == ["a"]
    assert {runs.producer(product, "a") for product in PRODUCTS} == {"a"}
    assert set(SCORED.values()) <= set(PRODUCTS)


def test_a_matrix_produces_each_product_at_its_branch() -> None:
    matrix = {"cams": CAMS, "refine": REFINE, "retrain": RETRAIN}
    runs = Runs({"name": "a", "matrix": matrix})
    assert len(runs.final) == 8
    assert set(_producers(runs, "manifest").values()) == {"a"}
    for name, producer in _producers(runs, "cams").items():
        # The CAMs of `a` itself are those of grad-cam.
        assert producer == ("a" if "grad-cam" in name else "a/svc")
    for product in ("refine", "scores_grid", "refiner_predictions", "masks"):
        for name, producer in _producers(runs, product).items():
            assert producer == name.rsplit("/", 1)[0]
    assert all(name == producer for name, producer in _producers(runs, "segmenter").items())


def test_the_order_of_a_matrix_moves_nothing() -> None:
    def producers(matrix: dict[str, Any]) -> dict[str, dict[str, str]]:
        runs = Runs({"name": "a", "matrix": matrix})
        products = set(PRODUCTS) - {"seeds"}  # which no refiner here learns from
        return {product: dict(sorted(_producers(runs, product).items())) for product in products}

    straight = producers({"cams": CAMS, "refine": REFINE, "retrain": RETRAIN})
    turned = [dict(reversed(axis.items())) for axis in (CAMS, REFINE, RETRAIN)]
    assert producers(dict(zip(("cams", "refine", "retrain"), turned, strict=True))) == straight


def test_axes_are_optional() -> None:
    runs = Runs({"name": "a", "matrix": {"retrain": RETRAIN}})
    assert _producers(runs, "masks") == {"a/b0": "a", "a/b1": "a"}
    runs = Runs(CLIP_ES | {"name": "a", "matrix": {"cams": CAMS, "retrain": RETRAIN}})
    assert set(_producers(runs, "masks").values()) == {"a/grad-cam", "a/svc"}
    runs = Runs({"name": "a", "matrix": {"refine": REFINE}})
    assert _producers(runs, "masks") == {"a/none": "a/none", "a/excel": "a/excel"}


def test_swept_runs_share_what_is_the_same() -> None:
    refine = {"method": "weclip"}
    runs = Runs(
        {"name": "a", "refine": refine, "sweep": {"retrain.lr": [1e-3, 1e-4], "seed": [0, 1]}}
    )
    assert set(_producers(runs, "cams").values()) == {"a"}
    assert _producers(runs, "masks") == {
        f"a/lr-{lr}_seed-{seed}": f"a/lr-0.001_seed-{seed}"
        for lr in ("0.001", "0.0001")
        for seed in (0, 1)
    }
    assert all(name == producer for name, producer in _producers(runs, "predictions").items())


ROOT = Path(__file__).parents[2]


def _table(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    """A table in a folder whose presets are the shipped ones."""
    (folder / "tables").mkdir(exist_ok=True)
    if not (folder / "presets").exists():
        (folder / "presets").symlink_to(ROOT / "workflow/presets")
    content = {
        "title": name,
        "columns": {
            "masks": {"title": "masks", "product": "masks", "split": "train"},
            "cost": {"title": "trained", "product": "training", "metric": "trained_parameters"},
        },
        "rows": [{"preset": "demo-weclip"} | row for row in rows],
    }
    path = folder / "tables" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_tables_share_their_runs(tmp_path: Path) -> None:
    scores = {"name": "of the CAM", "changes": {"infer": {"scores": "cam"}}}
    first = _table(tmp_path, "one", scores, {"name": "again", "seeds": [1]})
    second = _table(tmp_path, "two", {"name": "plain"}, scores | {"name": "once more"})
    runs = Runs({"name": "mine"}, tables=[first, second])
    assert runs.final == ["mine"]
    assert runs.tables["one"]["of-the-cam"] == runs.tables["two"]["once-more"]
    assert runs.tables["two"]["plain"] == "demo-weclip"
    files = runs.table_files(first)
    assert files == {
        "of-the-cam": [
            "results/demo-weclip/scores-cam/scores/masks.train.json",
            "results/demo-weclip/refine/efficiency.json",
        ],
        "again_seed-1": [
            "results/demo-weclip/seed-1/scores/masks.train.json",
            "results/demo-weclip/seed-1/refine/efficiency.json",
        ],
    }
    assert runs.producer("cams", "demo-weclip/seed-1") == "demo-weclip"


def test_a_table_uses_the_runs_of_the_preset_itself(tmp_path: Path) -> None:
    table = _table(tmp_path, "one", {"name": "plain"})
    preset = merged_yaml(ROOT / "config.yaml", ROOT / "workflow/presets/demo-weclip.yaml")
    runs = Runs(preset | {"compute": {"workers": 7}}, tables=[table])
    assert list(runs) == ["demo-weclip"]
    assert runs.table_files(table)["plain"][0] == "results/demo-weclip/scores/masks.train.json"
    other = Runs({"name": "mine", "compute": {"workers": 7}}, tables=[table])
    assert other["demo-weclip"].config.compute.workers == 7
    changed = Runs(preset | {"seed": 3}, tables=[table])
    with pytest.raises(ConfigError, match=r"one\.yaml: needs the run results/demo-weclip"):
        changed.table_files(table)


def test_a_table_with_errors_has_no_runs_and_the_others_have(tmp_path: Path) -> None:
    good, wrong = _table(tmp_path, "good", {"name": "plain"}), _table(tmp_path, "wrong")
    wrong.write_text(wrong.read_text() + "colour: red\n")
    runs = Runs({"name": "mine"}, tables=[wrong, good])
    assert set(runs.tables) == {"good"}
    (problem,) = runs.invalid_tables.values()
    assert re.search(r"wrong\.yaml: not a valid table\n(?s:.*)  colour: unknown key", problem)


def test_a_run_cannot_be_inside_the_folder_of_another() -> None:
    with pytest.raises(ConfigError, match="cannot be called 'masks'"):
        Runs({"runs": {"masks": {}}})


def test_runs_with_other_tags_share_the_manifest_alone() -> None:
    shares = [0.0, 0.2, 0.4]
    runs = Runs({"name": "a", "sweep": {"tag_noise.dropped": shares, "retrain.lr": [1e-3, 1e-4]}})
    assert set(_producers(runs, "manifest").values()) == {"a"}
    for product in ("noisy_tags", "cams", "masks"):
        producers = _producers(runs, product)
        for share in shares:
            first = f"a/dropped-{share}_lr-0.001"
            shared = "a" if not share and product != "masks" else first
            assert producers[first] == producers[f"a/dropped-{share}_lr-0.0001"] == shared
    assert runs.manifest_folder("a/dropped-0.0_lr-0.001") == "results/a/manifest"
    noisy = "results/a/dropped-0.2_lr-0.001/noisy_tags"
    assert runs.manifest_folder("a/dropped-0.2_lr-0.0001") == noisy
    # The blob is made from tags, so each share has its own.
    records = runs.records("a/dropped-0.2_lr-0.0001")
    assert records["blob", "train"].startswith("results/a/dropped-0.2_lr-0.001/scores/")


@pytest.mark.parametrize(
    ("settings", "draws"),
    [
        ({"sweep": {"tag_noise.dropped": [0.0, 0.2]}}, True),
        ({"runs": {"given": {}, "b": {"tag_noise": {"added": 0.1}}}}, True),
        ({"runs": {"given": {}, "b": {"tag_noise": {"source": "clip"}}}}, False),
        ({"sweep": {"seed": [0, 1]}}, False),
        ({"sweep": {"seed": [0, 1]}, "tag_noise": {"dropped": 0.5}}, False),
        ({"tag_noise": {"dropped": 0.5}}, False),
    ],
)
def test_the_chart_of_tag_noise_needs_two_shares(settings: dict[str, Any], draws: bool) -> None:
    overviews = Runs({"name": "a", **settings}).overviews
    assert ("results/a/pictures/tag_noise.png" in overviews) == draws
    several = "sweep" in settings or "runs" in settings
    assert ("results/a/tables/sweep.md" in overviews) == several
