"""The configuration: unknown keys, the variant, overlays, and the generated files."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
import yaml

from wsss.config import Config, ConfigError, expand_path, from_mapping, load_config
from wsss.config.base import Section
from wsss.config.render import default_yaml, json_schema
from wsss.config.runs import points

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("wrong", "suggestion"),
    [
        ({"clips": {}}, "did you mean clip?"),
        (
            {"cams": {"affinity": {"box_treshold": 0.4}}},
            "did you mean cams.affinity.box_threshold?",
        ),
        ({"lr": 1.0}, "did you mean refine.train.lr or retrain.lr?"),
        ({"data": {"zzz": 1}}, "valid keys here: kind, root"),
    ],
)
def test_unknown_key_names_the_nearest_valid_one(wrong: dict[str, object], suggestion: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        from_mapping(wrong)
    assert suggestion in str(caught.value)


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping({"shards": 0, "retrain": {"batch": -1}, "data": {"kind": "imagenet"}})
    for key in ("shards", "retrain.batch", "data.kind"):
        assert key in str(caught.value)
    assert "'imagenet'" in str(caught.value)


def test_contradicting_sections_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cams\.external\.path"):
        from_mapping({"cams": {"source": "external"}})
    with pytest.raises(ConfigError, match="add train"):
        from_mapping({"cams": {"splits": ["val"]}})
    with pytest.raises(
        ConfigError, match=r"refine\.checkpoint is given, but refine\.method is none"
    ):
        from_mapping({"refine": {"checkpoint": "a.pth"}})


def test_an_imported_refiner_needs_neither_training_images_nor_seeds() -> None:
    base = {"cams": {"splits": []}, "retrain": {"enabled": False}}
    with pytest.raises(ConfigError, match="add train"):
        from_mapping(base | {"refine": {"method": "weakclip"}})
    refine = from_mapping(base | {"refine": {"method": "weakclip", "checkpoint": "a.pth"}}).refine
    assert refine.is_trained
    assert not refine.trains
    assert not refine.needs_seeds


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"predict": {"stride": 32}}, r"predict\.stride must be at most predict\.window"),
        ({"predict": {"window": 32, "stride": 33}}, r"predict\.stride must be at most"),
        ({"predict": {"scales": []}}, r"predict\.scales must be positive"),
        ({"retrain": {"scale_range": [2.0, 0.5]}}, r"retrain\.scale_range must be positive"),
        ({"retrain": {"batch_norm": "frozen"}}, r"retrain\.init must name; it is random"),
    ],
)
def test_a_segmenter_that_cannot_be_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(wrong)
    off = {"retrain": {"enabled": False, **wrong.get("retrain", {})}}
    from_mapping(wrong | off)


def test_own_crf_takes_the_variant_and_the_defaults() -> None:
    settings = {"variant": "published", "predict": {"own_crf": {"gaussian_sxy": 4.0}}}
    crf = from_mapping(settings).predict.own_crf
    assert crf is not None
    assert (crf.gaussian_sxy, crf.gaussian_compat, crf.image) == (4.0, 3.0, "wrapped")
    with pytest.raises(ConfigError, match=r"predict\.own_crf\.gauss: unknown key"):
        from_mapping({"predict": {"own_crf": {"gauss": 1.0}}})


@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_variant_decides_every_auto(variant: str) -> None:
    config = from_mapping({"variant": variant})
    published = variant == "published"
    assert config.cams.gradient == ("softmax" if published else "margin")
    assert config.cams.affinity.box_edge == ("exclusive" if published else "inclusive")
    assert config.clip.position_rounding == ("float16" if published else "float32")
    assert config.masks.crf.image == ("wrapped" if published else "raw")


def test_explicit_option_wins_over_the_variant() -> None:
    config = from_mapping({"variant": "published", "cams": {"gradient": "margin"}})
    assert config.cams.gradient == "margin"
    assert config.cams.affinity.box_edge == "exclusive"


def _departures(section: Section) -> list[tuple[str, dict[str, object]]]:
    found = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            found += _departures(value)
        elif isinstance(field.json_schema_extra, dict) and "published" in field.json_schema_extra:
            found.append((name, field.json_schema_extra))
    return found


def test_departures_are_valid_values_and_explained() -> None:
    departures = _departures(Config())
    assert len(departures) >= 5
    for name, extra in departures:
        for variant in ("published", "corrected"):
            assert extra[variant] != "auto", name


def test_overlay_merges_sections_and_replaces_values(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("retrain: {lr: 0.1, batch: 4}\npredict: {scales: [1, 2]}\n")
    (tmp_path / "b.yaml").write_text("retrain: {lr: 0.2}\npredict: {scales: [1.0]}\n")
    config = load_config(tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert (config.retrain.lr, config.retrain.batch, config.predict.scales) == (0.2, 4, [1.0])


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", ":\n:"])
def test_file_that_is_no_mapping_is_one_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_shared_folder_hangs_on_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSSS_SHARED", "/elsewhere")
    assert expand_path("${WSSS_SHARED}/data") == Path("/elsewhere/data")
    monkeypatch.delenv("WSSS_SHARED")
    assert expand_path("${WSSS_SHARED}/data") == Path("../shared/data")


@pytest.mark.parametrize(
    ("file", "expected"),
    [("config.yaml", default_yaml()), ("workflow/schemas/config.schema.json", json_schema())],
)
def test_generated_file_is_in_step(file: str, expected: str) -> None:
    found = (ROOT / file).read_text(encoding="utf-8")
    difference = "\n".join(
        difflib.unified_diff(found.splitlines(), expected.splitlines(), lineterm="")
    )
    assert found == expected, f"{file} is out of date: run `make generated`\n{difference}"


def test_shipped_file_loads_to_the_defaults() -> None:
    assert load_config(ROOT / "config.yaml") == from_mapping({})


@pytest.mark.parametrize(
    "preset", sorted((ROOT / "workflow/presets").glob("*.yaml")), ids=lambda path: path.stem
)
def test_preset_is_valid_over_the_shipped_file(preset: Path) -> None:
    config = load_config(ROOT / "config.yaml", preset)
    assert config.name == preset.stem


def test_every_key_is_explained_in_the_shipped_file() -> None:
    lines = default_yaml().splitlines()
    for number, line in enumerate(lines):
        if line.strip() and not line.strip().startswith("#"):
            assert lines[number - 1].strip().startswith("#"), line
    assert yaml.safe_load(default_yaml())["name"] == "demo"


def test_a_sweep_is_one_run_a_value() -> None:
    assert list(points({"name": "a"})) == [""]
    found = points({"name": "a", "sweep": {"refine.weakclip.prompts": [2, 4], "seed": [0, 1]}})
    assert list(found) == [f"prompts-{n}_seed-{s}" for n in (2, 4) for s in (0, 1)]
    last = found["prompts-4_seed-1"]
    assert (last.refine.weakclip.prompts, last.seed, last.name) == (4, 1, "a.prompts-4_seed-1")
    assert last.sweep == {}


def test_named_runs_combine_with_a_sweep() -> None:
    runs = {
        "plain": {"refine": {"method": "none"}},
        "SVC+LVC": {"cams": {"source": "patch_text"}, "refine": {"method": "excel"}},
    }
    found = points({"name": "a", "runs": runs, "sweep": {"seed": [0, 1]}})
    assert list(found) == ["plain_seed-0", "plain_seed-1", "SVC-LVC_seed-0", "SVC-LVC_seed-1"]
    last = found["SVC-LVC_seed-1"]
    assert (last.refine.method, last.cams.source, last.seed) == ("excel", "patch_text", 1)
    assert list(points({"runs": runs})) == ["plain", "SVC-LVC"]
    with pytest.raises(ConfigError, match="'data' decides what all runs share"):
        points({"runs": {"a": {"data": {"root": "b"}}}})
    with pytest.raises(ConfigError, match=r"(?s)run plain.*unknown key; did you mean"):
        points({"runs": {"plain": {"refine": {"methd": "none"}}}})


def test_a_matrix_is_every_combination() -> None:
    matrix = {
        "cams": {"grad-cam": {}, "svc": {"cams": {"source": "patch_text"}}},
        "refine": {
            "none": {"refine": {"method": "none"}},
            "excel": {"refine": {"method": "excel"}},
        },
        "retrain": {"b0": {}, "b1": {"retrain": {"model": "segformer-b1"}}},
    }
    found = points({"name": "a", "matrix": matrix, "sweep": {"seed": [0, 1]}})
    assert len(found) == 16
    assert list(found)[:3] == [
        "grad-cam/none/b0/seed-0",
        "grad-cam/none/b0/seed-1",
        "grad-cam/none/b1/seed-0",
    ]
    last = found["svc/excel/b1/seed-1"]
    assert (last.cams.source, last.refine.method, last.retrain.model, last.seed) == (
        "patch_text", "excel", "segformer-b1", 1,
    )  # fmt: skip
    assert last.name == "a.svc.excel.b1.seed-1"
    del matrix["refine"]
    assert list(points({"matrix": matrix})) == ["grad-cam/b0", "grad-cam/b1", "svc/b0", "svc/b1"]
    with pytest.raises(ConfigError, match=r"matrix\.retrain\.b0 changes masks; on this axis"):
        points({"matrix": {"retrain": {"b0": {"masks": {"par": True}}}}})
    with pytest.raises(ConfigError, match="runs and matrix both name the runs"):
        points({"matrix": matrix, "runs": {"one": {}}})


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"data.root": ["a"]}, "decides what all runs share"),
        ({"refine.weakclip.prompt": [1]}, r"run prompt-1.*did you mean .*prompts"),
        ({"seed": [0, 0]}, "two runs would be called 'seed-0'"),
        ({"refine.weakclip.prompts": [-1]}, "prompts"),
    ],
)
def test_a_wrong_sweep_is_told(sweep: dict[str, list[object]], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        points({"sweep": sweep})
