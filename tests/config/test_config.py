"""The configuration: unknown keys, the variant, overlays, and the generated files."""

import difflib
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.builders import CLIP_ES
from wsss.clip.model_config import known_config
from wsss.clip.trunk.check import read_outline
from wsss.config.base import Section, inner_section, takes_auto
from wsss.config.cross_checks import _encoder_sizes, check_photo_folder
from wsss.config.errors import ConfigError
from wsss.config.labels import crf_backend
from wsss.config.load import OLD_KEYS, OLD_VALUES, all_keys, from_mapping, load_config
from wsss.config.model import DEMO, Config
from wsss.config.paths import expand_path
from wsss.config.refine import RefineConfig
from wsss.config.render import default_yaml, json_schema, reference_markdown
from wsss.config.retrain import RECIPE_BATCH_NORM, RECIPE_INIT, RetrainConfig
from wsss.config.runs import expand_runs
from wsss.pipeline.runs import Runs
from wsss.refine.blocks.options import GradCamOptions
from wsss.refine.registry import METHODS

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "workflow/presets").glob("*.yaml"))
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(json.loads(SCHEMA))


@pytest.mark.parametrize(
    ("wrong", "suggestion"),
    [
        ({"clips": {}}, "did you mean clip?"),
        (
            {"cams": {"affinity": {"box_treshold": 0.4}}},
            "did you mean cams.affinity.box_threshold?",
        ),
        ({"lr": 1.0}, "did you mean refine.train.lr or retrain.lr?"),
        ({"refine": {"iterations": 5}}, "did you mean refine.train.iterations?"),
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


def test_a_key_that_is_no_text_is_named() -> None:  # Snakemake hands over what YAML read
    with pytest.raises(ConfigError, match=r"a key of data\.prompts: found True; put it in quot"):
        from_mapping({"data": {"prompts": {True: "a"}}})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"masks": {"crf": False}},
            "masks.crf: found False, expected a section, e.g. {long_side: 1024}; to turn it off: "
            "{enabled: false}",
        ),
        ({"clip": "RN50"}, "clip: found 'RN50', expected a section, e.g. {"),
        ({"sweep": [1]}, "sweep: expected keys with values, e.g. {key: value} (found [1])"),
        ({"name": "my run"}, "name: expected letters, digits, full stops, hyphens and underscores"),
        ({"name": "a" * 300}, "name: expected at most 200 characters"),
        ({"retrain": {"iterations": "many"}}, "expected a whole number (found 'many')"),
        ({"retrain": {"crop": 1.5}}, "retrain.crop: expected a whole number (found 1.5)"),
        ({"retrain": {"lr": "low"}}, "retrain.lr: expected a number (found 'low')"),
        ({"retrain": {"enabled": "maybe"}}, "expected true or false (found 'maybe')"),
        ({"data": {"classes": "a, b"}}, "data.classes: expected a list, e.g. [a, b] (found 'a, b'"),
        ({"infer": {"scales": []}}, "infer.scales: expected at least 1 item (found [])"),
        ({"predict": {"scales": [0]}}, "predict.scales.0: expected a number greater than 0"),
        ({"infer": {"long_side": -1}}, "infer.long_side: expected a number greater than 0"),
        ({"clip": {"long_side": 0}}, "clip.long_side: expected a number greater than 0"),
        ({"seeds": {"values": [-1]}}, "seeds.values.0: expected a number greater than 0"),
        ({"cams": {"patch_text": {"tse": {"temperature": 0}}}}, "temperature: expected a number"),
        ({"refine": {"weakclip": {"adapter_lr": -1}}}, "expected a number greater than or equal"),
        (
            {"refine": {"method": "weclipp"}},
            f"expected one of 'none', {', '.join(map(repr, [*METHODS][:-1]))} or "
            f"{[*METHODS][-1]!r}; did you mean 'weclip'? (found 'weclipp')",
        ),
        ({"supervision": "words"}, "supervision: expected 'tags' or 'masks' (found 'words')"),
    ],
)
def test_wrong_values_are_explained_in_plain_words(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_mapping(wrong)
    assert message in str(refused.value)
    for word in ("Input should", "should match", "should have", "instance of", "valid dictionary"):
        assert word not in str(refused.value)


def test_contradictory_sections_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cams\.external\.path"):
        from_mapping({"cams": {"source": "external"}})
    with pytest.raises(ConfigError, match="add train"):
        from_mapping({"cams": {"splits": ["val"]}})
    with pytest.raises(ConfigError, match=r"refine\.checkpoint is given, but .* is none"):
        from_mapping({"refine": {"method": "none", "checkpoint": "a.pth"}})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"data": {"kind": "folder", "val_list": "val"}}, "data.masks must name the pixel labels"),
        ({"data": {"val_list": ""}, "cams": {"splits": ["train"]}}, "must name images to score"),
        ({"refine": {"method": "weclip", "checkpoint": "x.pth"}}, "drop refine.checkpoint"),
        (
            {"refine": {"method": "none"}, "retrain": {"enabled": False}},
            "nothing is trained: choose refine.method or retrain",
        ),
    ],
)
def test_an_upper_bound_needs_truth_and_a_training(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping({"supervision": "masks"} | wrong)
    config = from_mapping({"supervision": "masks", "refine": {"method": "weakclip"}})
    assert config.cam_splits == ()
    assert not config.needs_seeds


def test_an_imported_refiner_needs_neither_training_images_nor_seeds() -> None:
    base = {"cams": {"splits": []}, "retrain": {"enabled": False}}
    with pytest.raises(ConfigError, match="add train"):
        from_mapping(base | {"refine": {"method": "weakclip"}})
    refine = from_mapping(base | {"refine": {"method": "weakclip", "checkpoint": "a.pth"}}).refine
    assert refine.is_trained
    assert not refine.trains
    assert not refine.needs_seeds


@pytest.mark.parametrize(
    ("header", "section", "message"),
    [
        (
            b"image,tags\n",
            {},
            r"data\.val_list is val, but .*tags\.csv has no column split",
        ),
        ("\ufeffImage;Tags".encode(), {}, r"and cams\.splits to \[train\]"),
        ("image\ttags".encode("utf-16"), {}, "has no column split"),
        (b"image,tags\n", {"train_list": "a.txt"}, r"the list a\.txt alone"),
        (b'image,tags,"Split"\n', {}, ""),
        ("image\tsubset\ttags".encode("utf-16"), {}, ""),
        (b"image,tags\n", {"val_list": "held.txt"}, ""),
        (b"", {}, ""),  # the stage that reads the table says what is wrong with it
        (None, {}, ""),  # jobs may run elsewhere
    ],
)
def test_photos_of_which_none_is_held_out_need_no_val(
    tmp_path: Path, header: bytes | None, section: dict[str, Any], message: str
) -> None:
    if header is not None:
        (tmp_path / "tags.csv").write_bytes(header)
    data = {"kind": "folder", "root": str(tmp_path)} | section
    config = from_mapping({"data": data})
    if not message:
        check_photo_folder(config, "c.yaml")
        return
    train = {"cams": {"splits": ["train"]}}
    for refused in (config, from_mapping({"data": data} | train)):  # its segmenter labels val
        with pytest.raises(ConfigError, match=message):
            check_photo_folder(refused, "c.yaml")
    with pytest.raises(ConfigError, match=message):
        Runs({"data": data})
    check_photo_folder(from_mapping({"data": data | {"val_list": ""}} | train), "c.yaml")
    check_photo_folder(
        from_mapping({"data": data, "retrain": {"enabled": False}} | train), "c.yaml"
    )


def test_masks_are_not_written_among_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"kind": "folder", "root": ".", "val_list": ""}
    config = {"data": data, "cams": {"splits": ["train"]}}
    for folder in (".", "masks", str(tmp_path / "masks")):
        with pytest.raises(ConfigError, match=r"pictures\.folder: .* lies in data\.root"):
            Runs(config | {"pictures": {"folder": folder}})
    for folder in ("", "../masks", "results/masks"):
        Runs(config | {"pictures": {"folder": folder}})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"predict": {"stride": 32}}, r"predict\.stride must be at most predict\.window"),
        ({"predict": {"window": 32, "stride": 33}}, r"predict\.stride must be at most"),
        ({"retrain": {"scale_range": [2.0, 0.5]}}, r"retrain\.scale_range must be positive"),
        (
            {"retrain": {"init": "random", "batch_norm": "frozen"}},
            r"retrain\.init must name; it is random",
        ),
        (
            {"retrain": {"model": "segformer-b0", "init": "clip"}},
            r"retrain\.init clip stands for .* it is segformer-b0",
        ),
        ({"retrain": {"iterations": 4, "warmup": 4}}, r"warmup is 4 steps, but .* only 4; lower"),
        ({"retrain": {"batch": 1, "model": "deeplabv3plus-r50"}}, r"retrain\.batch is 1, but deep"),
        ({"retrain": {"crop": 16}}, r"retrain\.crop is 16 pixels, expected at least 32"),
        (
            {"retrain": {"model": "segmenter-deit-s", "crop": 500}},
            r"retrain\.crop is 500 pixels; .* a multiple of its patch, 16, e\.g\. 496",
        ),
        (
            {"retrain": {"model": "segformer-b0"}, "predict": {"window": 31}},
            r"predict\.window is 31; expected at least 32 pixels",
        ),
        (
            {"retrain": {"model": "segmenter-deit-s"}, "predict": {"window": 500}},
            r"predict\.window is 500; .* \(16 x 16 pixels\), at least 32, e\.g\. 496",
        ),
    ],
)
def test_an_impossible_segmenter_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(wrong)
    off = {"retrain": {"enabled": False, **wrong.get("retrain", {})}}
    from_mapping(wrong | off)


CLIP_VIT = {"retrain": {"model": "clip-vit", "init": "clip"}, "refine": {"method": "none"}}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (CLIP_VIT | {"predict": {"window": 66}}, r"predict\.window is 66; .* \(16 x 16 pixels\)"),
        (
            CLIP_VIT | {"retrain": {"model": "clip-vit", "crop": 100}},
            r"retrain\.crop is 100 pixels",
        ),
        (
            {"refine": {"method": "weakclip"}, "infer": {"window": 30}},
            r"infer\.window is 30; .* the network's patch \(16 x 16 pixels\), e\.g\. 16",
        ),
        (
            {"refine": {"method": "weclip", "train": {"crop": 65}}},
            r"refine\.train\.crop is 65; expected a multiple of the encoder's patch",
        ),
        (
            {"refine": {"method": "weclip", "weclip": {"rfm_blocks": 13}}},
            r"refine\.weclip\.rfm_blocks is 13, but .* has 12 blocks; lower it",
        ),
    ],
)
@pytest.mark.parametrize("model", ["ViT-B-16-quickgelu", "tiny.json", "local-dir:tiny"])
def test_what_does_not_fit_the_encoder_is_refused_before_any_job(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, Any],
    message: str,
    model: str,
) -> None:
    """Trainings and predictions would refuse it, after the stages before them."""
    monkeypatch.chdir(tmp_path)
    config = {"clip": {"model": model, "pretrained": "random"}, "data": {"kind": "voc"}} | wrong
    Path("tiny").mkdir()
    if model != "ViT-B-16-quickgelu":
        Runs(config)  # its model config is not here: jobs may run elsewhere
    sizes = {"vision_cfg": {"patch_size": 16, "layers": 12}}
    Path("tiny.json").write_text(json.dumps(sizes))
    Path("tiny/open_clip_config.json").write_text(json.dumps({"model_cfg": sizes}))
    with pytest.raises(ConfigError, match=message):
        Runs(config)
    with pytest.raises(ConfigError, match=rf"run a: .*\n  {message}"):
        Runs({"clip": config["clip"], "data": config["data"], "runs": {"a": wrong}})
    for vision in ({"timm_model_name": "x"}, {"patch_size": "16"}, [], None):
        Path("tiny.json").write_text(json.dumps({"vision_cfg": vision}))
        Runs(config | {"clip": {"model": "tiny.json", "pretrained": "random"}} | {"refine": {}})


def test_sizes_of_a_model_config_are_those_of_its_tower() -> None:
    """They are read without open_clip, which would take seconds at every start."""
    for name in ("ViT-B-32", "ViT-L-14-quickgelu", "ViT-g-14"):
        tower = read_outline(known_config(name) or {}, name)
        assert _encoder_sizes(name) == (tower.patch, len(tower.blocks))
    for name in ("RN50", "EVA02-B-16", "ViT-nothing", "hf-hub:a/b", "from-weights"):
        assert _encoder_sizes(name) is None


def test_crf_settings_take_the_variant_and_the_defaults() -> None:
    settings = {"variant": "published", "predict": {"crf_settings": {"gaussian_sxy": 4.0}}}
    crf = from_mapping(settings).predict.crf_settings
    assert (crf.gaussian_sxy, crf.gaussian_compat, crf.image) == (4.0, 3.0, "wrapped")
    with pytest.raises(ConfigError, match=r"predict\.crf_settings\.gauss: unknown key"):
        from_mapping({"predict": {"crf_settings": {"gauss": 1.0}}})


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


def _fields(section: type[Section] = Config) -> list[tuple[str, Any]]:
    """Every field of the configuration that is not a section, by key."""
    fields = []
    for name, field in section.model_fields.items():
        inner = inner_section(field)
        fields += [(f"{name}.{key}", value) for key, value in _fields(inner)] if inner else []
        fields += [] if inner and isinstance(field.default, Section) else [(name, field)]
    return fields


def _nested(key: str, value: object) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _value(config: object, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


AUTO_KEYS = sorted(
    key for key, field in _fields() if takes_auto(field) and "crf_settings" not in key
)


def test_many_options_follow_the_variant() -> None:
    assert len(AUTO_KEYS) >= 30
    for key in ("clip.keep_ratio", "retrain.batch_norm", "refine.excel.ignore_band"):
        assert key in AUTO_KEYS


@pytest.mark.parametrize("key", AUTO_KEYS)
def test_auto_is_filled_in_before_validation(key: str) -> None:
    """A file may contain auto; the resolved type accepts only the value of each variant."""
    field = dict(_fields())[key]
    assert "auto" not in str(get_args(field.annotation))
    kind = "voc" if key == "compute.workers" else "demo"  # the demo says a number
    for variant in ("published", "corrected"):
        given = {"variant": variant, "data": {"kind": kind}}
        missing = from_mapping(given)
        assert _value(missing, key) != "auto"
        assert missing == from_mapping(given | _nested(key, "auto"))
    assert _value(from_mapping({}), key) == _value(Config(), key)
    if key == "shards":  # depends on data and machine
        return
    # A CRF's backend depends on what is installed; every other default is a value already.
    assert _value(from_mapping({"data": {"kind": "voc"}}), key) == crf_backend(field.default)


def test_auto_that_depends_on_the_chain() -> None:
    excel = {
        "variant": "published",
        "data": {"kind": "voc"},
        "cams": {"source": "patch_text"},
        "refine": {"method": "excel"},
    }
    config = from_mapping(excel)
    assert (config.clip.keep_ratio, config.clip.normalization) == (False, "imagenet")
    assert (config.clip.position_rounding, config.cams.scaling) == ("float32", "exact")
    assert not config.infer.mirror_first
    explicit = from_mapping(excel | {"clip": {"keep_ratio": True}, "infer": {"mirror_first": True}})
    assert explicit.clip.keep_ratio
    assert explicit.infer.mirror_first
    clip_vit = from_mapping({"retrain": {"model": "clip-vit"}}).retrain
    assert (clip_vit.init, config.retrain.init) == ("clip", "mit-b0")
    models = get_args(RetrainConfig.model_fields["model"].annotation)
    assert set(RECIPE_INIT) == set(models), "auto would silently mean random for the others"
    assert set(RECIPE_BATCH_NORM) <= set(models), "auto would silently mean trained for a misspelt"
    weclip = from_mapping({"variant": "published", "refine": {"method": "weclip"}})
    assert (weclip.clip.keep_ratio, weclip.clip.normalization) == (True, "imagenet")
    assert (
        from_mapping({"variant": "published", "refine": {"method": "none"}}).clip.normalization
        == "clip"
    )
    for method in METHODS:
        refine = {"refine": {"method": method}}
        assert from_mapping(refine, partial=True).clip.normalization == "clip"
        published = from_mapping({"variant": "published"} | refine, partial=True)
        assert published.clip.normalization == METHODS[method].published_normalization


def test_every_key_of_the_shipped_file_is_valid_with_its_value() -> None:
    shipped = yaml.safe_load(default_yaml())
    for key in all_keys():
        value = shipped
        for part in key.split("."):
            value = value[part] if value is not None else None
        if value is not None:
            from_mapping(_nested(key, value), partial=True)


@pytest.mark.parametrize(("old", "new"), OLD_KEYS.items())
def test_an_old_key_is_an_error_that_names_the_new_one(old: str, new: str) -> None:
    assert new.split(" ")[0] in all_keys()
    assert old not in all_keys()
    with pytest.raises(ConfigError) as caught:
        from_mapping(_nested(old, 1))
    assert f"{old}: is now {new}" in str(caught.value)


@pytest.mark.parametrize(("old", "new"), OLD_VALUES.items())
def test_an_old_value_is_an_error_that_names_the_new_one(old: tuple[str, str], new: str) -> None:
    key, value = old
    with pytest.raises(ConfigError, match=f"{value} is now {new}"):
        from_mapping(_nested(key, value))
    from_mapping(_nested(key, new))


def test_refine_method_comes_from_the_registry() -> None:
    assert list(METHODS) == [name for name in RefineConfig.model_fields if name in METHODS]
    for name, options in METHODS.items():
        config = from_mapping(
            {"refine": {"method": name}, "cams": {"source": "patch_text"}}, partial=True
        )
        assert type(config.refine.options) is options
        assert config.refine.section(options) is config.refine.options
        assert config.refine.needs_seeds == options.needs_seeds
        assert pickle.loads(pickle.dumps(config)) == config


def test_options_can_be_imported_first() -> None:
    for module in ("wsss.refine.weclip.options", "wsss.refine.registry", "wsss.config.refine"):
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


def test_overlay_merges_sections_and_replaces_values(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("retrain: {lr: 0.1, batch: 4}\npredict: {scales: [1, 2]}\n")
    (tmp_path / "b.yaml").write_text("retrain: {lr: 0.2}\npredict: {scales: [1.0]}\n")
    config = load_config(tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert (config.retrain.lr, config.retrain.batch, config.predict.scales) == (0.2, 4, [1.0])


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", ":\n:"])
def test_a_file_without_a_mapping_is_one_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_shared_folder_depends_on_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSSS_SHARED", "/elsewhere")
    assert expand_path("${WSSS_SHARED}/data") == Path("/elsewhere/data")
    monkeypatch.delenv("WSSS_SHARED")
    assert expand_path("${WSSS_SHARED}/data") == Path("../shared/data")


@pytest.mark.parametrize(
    ("file", "expected"),
    [("workflow/schemas/config.schema.json", SCHEMA)],
)
def test_generated_file_is_up_to_date(file: str, expected: str) -> None:
    actual = (ROOT / file).read_text(encoding="utf-8")
    difference = "\n".join(
        difflib.unified_diff(actual.splitlines(), expected.splitlines(), lineterm="")
    )
    assert actual == expected, f"{file} is out of date: run `make generated`\n{difference}"


def test_shipped_file_is_the_demo_and_short() -> None:
    lines = (ROOT / "config.yaml").read_text().splitlines()
    assert load_config(ROOT / "config.yaml") == from_mapping({}) == from_mapping(DEMO)
    assert len(lines) <= 40
    keys = [line.removeprefix("# ") for line in lines if re.match(r"(# )? *\w+:( |$)", line)]
    from_mapping(yaml.safe_load("\n".join(keys)))  # what stands in comments is valid, too


CHOSEN = ("data.kind", "data.val_list", "cams.splits")


@pytest.mark.parametrize("kind", ["voc", "coco", "folder"])
def test_photographs_have_the_defaults_of_the_sections(kind: str) -> None:
    """Nothing of the demo is left where a preset names other data."""
    chosen = {"data": {"kind": kind, "val_list": ""}, "cams": {"splits": ["train"]}}
    config = load_config(ROOT / "config.yaml", options=chosen)
    defaults = Config.model_construct()
    for key, field in _fields():
        if takes_auto(field) or key in {"name", *CHOSEN} or "crf_settings" in key:
            continue
        assert _value(config, key) == _value(defaults, key), key


def test_the_reference_has_every_key_in_its_section() -> None:
    top, *sections = re.split(r"^## (\S+)$", reference_markdown(), flags=re.MULTILINE)
    tables = {"": top} | dict(zip(sections[::2], sections[1::2], strict=True))
    rows = {
        f"{section}.{name}".lstrip(".")
        for section, table in tables.items()
        for name in re.findall(r"^\| `(\w+)` \| `.*`\)? \| .+ \| .+ \|$", table, re.MULTILINE)
    }
    crf = "predict.crf_settings."  # null, or the keys of masks.crf
    expected = {key for key in all_keys() if not key.startswith(crf)}
    assert rows | (tables.keys() - {""}) == expected


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_is_valid_over_the_shipped_file(preset: Path) -> None:
    config = load_config(ROOT / "config.yaml", preset)
    assert config.name == preset.stem


@pytest.mark.parametrize("preset", ["coco14-weclip", "voc12-weclip-plus"])
def test_a_preset_with_vit_l_has_the_release_s_numbers(preset: str) -> None:
    """Also where the preset below names a number of blocks for ViT-B/16."""
    presets = ROOT / "workflow/presets"
    config = load_config(
        ROOT / "config.yaml", presets / f"{preset}.yaml", presets / "vit-l-14.yaml"
    )
    options = config.refine.options
    assert isinstance(options, GradCamOptions)
    assert options.rfm_blocks_of(24) == 12
    assert config.clip.logit_scale == 25
    assert config.refine.train.crop % 14 == 0


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_editors_find_the_schema_of_a_preset(preset: Path) -> None:
    first, *_ = preset.read_text(encoding="utf-8").splitlines()
    schema = preset.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert schema.read_text(encoding="utf-8") == SCHEMA
    assert not list(VALIDATOR.iter_errors(yaml.safe_load(preset.read_text(encoding="utf-8"))))


def test_every_key_is_explained_in_the_shipped_file() -> None:
    lines = default_yaml().splitlines()
    for index, line in enumerate(lines):
        if line.strip() and not line.strip().startswith("#"):
            assert lines[index - 1].strip().startswith("#"), line
    assert yaml.safe_load(default_yaml())["name"] == "photos"


def test_a_sweep_is_one_run_per_value() -> None:
    assert list(expand_runs({"name": "a"})) == [""]
    runs = expand_runs({"name": "a", "sweep": {"refine.weakclip.prompts": [2, 4], "seed": [0, 1]}})
    assert list(runs) == [f"prompts-{n}_seed-{s}" for n in (2, 4) for s in (0, 1)]
    last = runs["prompts-4_seed-1"]
    assert (last.refine.weakclip.prompts, last.seed, last.name) == (4, 1, "a.prompts-4_seed-1")
    assert last.sweep == {}


def test_named_runs_combine_with_a_sweep() -> None:
    runs = {
        "plain": {"refine": {"method": "none"}},
        "SVC+LVC": {"cams": {"source": "patch_text"}, "refine": {"method": "excel"}},
    }
    configs = expand_runs({"name": "a", "runs": runs, "sweep": {"seed": [0, 1]}})
    assert list(configs) == ["plain_seed-0", "plain_seed-1", "SVC-LVC_seed-0", "SVC-LVC_seed-1"]
    last = configs["SVC-LVC_seed-1"]
    assert (last.refine.method, last.cams.source, last.seed) == ("excel", "patch_text", 1)
    assert list(expand_runs({"runs": runs})) == ["plain", "SVC-LVC"]
    with pytest.raises(ConfigError, match="'data' decides what all runs share"):
        expand_runs({"runs": {"a": {"data": {"root": "b"}}}})
    with pytest.raises(ConfigError, match=r"(?s)run plain.*unknown key; did you mean"):
        expand_runs({"runs": {"plain": {"refine": {"methd": "none"}}}})


def test_a_matrix_expands_to_every_combination() -> None:
    matrix = {
        "cams": {"grad-cam": {}, "svc": {"cams": {"source": "patch_text"}}},
        "refine": {
            "none": {"refine": {"method": "none"}},
            "excel": {"refine": {"method": "excel"}},
        },
        "retrain": {"b0": {}, "b1": {"retrain": {"model": "segformer-b1"}}},
    }
    runs = expand_runs(CLIP_ES | {"name": "a", "matrix": matrix, "sweep": {"seed": [0, 1]}})
    assert len(runs) == 16
    assert list(runs)[:3] == [
        "grad-cam/none/b0/seed-0",
        "grad-cam/none/b0/seed-1",
        "grad-cam/none/b1/seed-0",
    ]
    last = runs["svc/excel/b1/seed-1"]
    assert (last.cams.source, last.refine.method, last.retrain.model, last.seed) == (
        "patch_text", "excel", "segformer-b1", 1,
    )  # fmt: skip
    assert last.name == "a.svc.excel.b1.seed-1"
    del matrix["refine"]
    assert list(expand_runs(CLIP_ES | {"matrix": matrix})) == [
        "grad-cam/b0",
        "grad-cam/b1",
        "svc/b0",
        "svc/b1",
    ]
    with pytest.raises(ConfigError, match=r"matrix\.retrain\.b0 changes masks; on this axis"):
        expand_runs({"matrix": {"retrain": {"b0": {"masks": {"par": True}}}}})
    with pytest.raises(ConfigError, match="runs and matrix both name the runs"):
        expand_runs({"matrix": matrix, "runs": {"one": {}}})


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"data.root": ["a"]}, "decides what all runs share"),
        ({"refine.weakclip.prompt": [1]}, r"run prompt-1.*did you mean .*prompts"),
        ({"refin.method": ["weclip"]}, "'refin.method' is no key; did you mean refine"),
        ({"seed": [0, 0]}, "two runs would be called 'seed-0'"),
        ({"seed": []}, "sweep: seed has no value"),
        ({"refine.weakclip.prompts": [-1]}, "prompts"),
    ],
)
def test_a_wrong_sweep_is_reported(sweep: dict[str, list[object]], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        expand_runs({"sweep": sweep})
