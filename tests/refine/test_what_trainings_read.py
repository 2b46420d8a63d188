"""Trainings take up a state, and scores are reused, only if all that they read is the same."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.refine.chain import Chain, Cut, assert_same_weights
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.cams.stage import run as make_cams
from wsss.compute.threads import fixed_threads
from wsss.config.base import overlay
from wsss.config.model import DEMO, Config
from wsss.config.paths import expand_path
from wsss.data.images.label_png import save_label_png
from wsss.data.ingest.stage import ingest
from wsss.data.manifest_folder import load
from wsss.refine import stage

TRAIN = {"iterations": 2, "warmup": 0, "batch": 2, "crop": 64}
EXCEL = {"width": 16, "lvc_start": 0, "crop_visibility": "image"}
WEAKCLIP = {"width": 16, "channels": 16, "heads": 2, "repeat_list": "again"}
CHAIN = {
    "refine": {"method": "excel", "train": TRAIN, "excel": EXCEL, "weakclip": WEAKCLIP},
    "clip": {**DEMO["clip"], "long_side": 64},
    "infer": {"scores": "cam", "scales": [1.0], "crf": False},
    "train": 5,
    "val": 1,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Its CAMs are imported and its CLIP is a file; a training and its scores are there."""
    chain = Chain(tmp_path_factory.mktemp("chains") / "chain", **CHAIN)
    weights = chain.folder / "clip.safetensors"
    shutil.copy(expand_path(chain.config().clip.pretrained), weights)
    external = {"path": str(chain.folder / "seeds"), "layout": "png"}
    chain.base = overlay(
        chain.base,
        {
            "clip": {"pretrained": str(weights)},
            "cams": {"source": "external", "external": external, "affinity": {"last_blocks": 6}},
        },
    )
    manifest, _ = load(chain.manifest)
    for sample in manifest:
        labels = np.zeros((sample.height, sample.width), np.uint8)
        labels[:20] = sample.tags[0] + 1
        save_label_png(chain.folder / "seeds" / f"{sample.id}.png", labels)
    config = chain.config()
    prepare(chain, config)
    chain.apply(config, chain.train(config, chain.folder / "trained"), chain.folder / "scores.h5")
    shutil.copytree(chain.folder, chain.folder.with_name("untouched"))
    return chain


@pytest.fixture
def imported(trained: Chain) -> Chain:
    """The same, which a test may change; at the same place, since keys hold paths of weights."""
    shutil.rmtree(trained.folder)
    shutil.copytree(trained.folder.with_name("untouched"), trained.folder)
    chain = copy(trained)
    chain.cams = dict(trained.cams)
    return chain


def prepare(chain: Chain, config: Config, shards: int = 1) -> list[Path]:
    """Ingest and CAMs again, as the workflow does after a change."""
    ingest(chain.manifest, **STAGES["ingest"].arguments(config))
    folder = chain.folder / "cams"
    paths = [folder / f"{part}-of-{shards}.h5" for part in range(1, shards + 1)]
    for part, path in enumerate(paths, start=1):
        arguments = (chain.manifest, "train", (part, shards), path, chain.folder / "cache")
        make_cams(*arguments, **STAGES["cams"].arguments(config))
    chain.cams = {"train": paths[0]}
    return paths


def key(chain: Chain, config: Config, cams: list[Path] | None = None) -> str:
    """The key of the training that would start."""
    seeds = [chain.seeds()] if config.refine.needs_seeds else []
    work = chain.folder / "key"
    with mock.patch.object(stage, "run_training", side_effect=Cut) as run, pytest.raises(Cut):
        stage.train(
            chain.manifest, cams or [chain.cams["train"]], work / "c", work / "l", work / "work",
            chain.folder / "cache", seeds, **STAGES["refine_train"].arguments(config),
        )  # fmt: skip
    return str(run.call_args.kwargs["key"])


def contents(paths: list[Path]) -> dict[str, Any]:
    """Arrays and attributes of each image."""
    items = {}
    for path in paths:
        with Shard(path) as shard:
            items |= {i.id: (i.attrs, {n: a.tolist() for n, a in i.arrays.items()}) for i in shard}
    return items


def replace_photo(chain: Chain) -> None:
    """Another picture of the same size under the name of one."""
    photo = load(chain.manifest)[0].samples[0].path
    with Image.open(photo) as image:
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(photo)


def replace_clip(chain: Chain) -> None:
    """Other weights of equal size in the same file."""
    path = Path(chain.base["clip"]["pretrained"])
    tensors = load_file(path)
    name = next(name for name in tensors if name.startswith("visual.") and tensors[name].ndim == 2)
    save_file(tensors | {name: tensors[name] * 1.01}, path)


PROMPTS = {"data": {"prompts": {"boat": "ship"}}}
BACKGROUNDS = {"data": {"backgrounds": ["wall"]}}


@pytest.mark.parametrize(
    ("change", "settings"),
    [(replace_photo, {}), (replace_clip, {}), (None, PROMPTS), (None, BACKGROUNDS)],
)
def test_what_imported_cams_do_not_show_starts_the_training_anew(
    imported: Chain, change: Callable[[Chain], None] | None, settings: Mapping[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The CAMs are the same before and after the change."""
    cams, scores = contents([imported.cams["train"]]), imported.folder / "scores.h5"
    out = imported.folder / "trained"
    if change is not None:
        change(imported)
    changed = imported.config(**settings)
    prepare(imported, changed)
    assert contents([imported.cams["train"]]) == cams
    caplog.set_level(logging.INFO)
    imported.apply(changed, imported.train(changed, out), scores)
    assert "going on after step" not in caplog.text
    assert "5 images: 0 reused, 5 computed" in caplog.text


def test_scores_know_the_texts_of_a_training_that_ended_alike(
    imported: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    """The texts of ExCEL decide its CAMs, whether or not training saw them."""
    checkpoint, scores = (
        imported.folder / "trained/checkpoint.safetensors",
        imported.folder / "scores.h5",
    )
    changed = imported.config(**PROMPTS)
    prepare(imported, changed)
    caplog.set_level(logging.INFO)
    caplog.clear()  # another test may have turned messages on
    imported.apply(changed, checkpoint, scores)
    imported.predict(changed, checkpoint, imported.folder / "predictions.h5")
    imported.predict(changed, checkpoint, imported.folder / "predictions.h5")
    assert [r.message for r in caplog.records if "reused" in r.message] == [
        "5 images: 0 reused, 5 computed",
        "1 images: 0 reused, 1 computed",
        "1 images: 1 reused, 0 computed",
    ]


def test_the_key_holds_lists_seeds_descriptions_and_versions(
    imported: Chain, tmp_path: Path
) -> None:
    listed = imported.folder / "data/ImageSets/Segmentation/again.txt"
    first, second, *_ = (sample.id for sample in load(imported.manifest)[0].split("train"))
    method = {"refine": {"method": "weakclip"}, "infer": {"scores": "decoder"}}
    weakclip, twice = imported.config(**method), imported.config(**method, data={"kind": "voc"})
    listed.write_text(f"{first}\n")
    keys = [key(imported, twice)]
    listed.write_text(f"{second}\n")
    keys.append(key(imported, twice))
    listed.write_text(f"{second}\nno_image_of_this_run\n")
    assert key(imported, twice) == keys[-1]
    keys.append(key(imported, weakclip))
    (imported.folder / "seeds.h5").unlink()
    labels = imported.folder / "seeds" / f"{first}.png"
    save_label_png(labels, np.zeros_like(np.asarray(Image.open(labels))))
    keys.append(key(imported, weakclip))
    knowledge = tmp_path / "knowledge.json"
    texts = {"tse": {"form": "topk", "knowledge": str(knowledge)}}
    enriched = imported.config(cams={"patch_text": texts})
    for sentence in ("it has a sail", "it has a mast"):
        knowledge.write_text(json.dumps({"boat": [sentence]}))
        keys.append(key(imported, enriched))
    for version in ("1", "2"):
        packages = {"torch": version}
        with mock.patch("wsss.artifacts.stage.package_versions", return_value=packages):
            keys.append(key(imported, imported.config()))
    assert len(set(keys)) == len(keys) == 8


def test_settings_that_change_no_result_keep_training_and_scores(
    imported: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    config, out = imported.config(), imported.folder / "trained"
    expected = key(imported, config)
    checkpoint = out / "checkpoint.safetensors"
    imported.apply(config, checkpoint, imported.folder / "scores/1-of-1.h5")
    caplog.set_level(logging.INFO)
    moved = imported.folder / "moved"
    (imported.folder / "data").rename(moved)
    other = imported.config(
        data={"root": str(moved), "max_pixels": 10**6, "quarantine_limit": 0.5},
        refine={"train": {"checkpoint_every": 1}},
        cams={"splits": ["train"]},
        infer={"crf": True},
    )
    cams = prepare(imported, other, shards=2)
    assert key(imported, other, cams) == expected
    assert key(imported, imported.config(refine={"train": {"threads": 2}}), cams) != expected
    stage.train(
        imported.manifest, cams, out / "again.safetensors", out / "loss.csv", out / "work",
        imported.folder / "cache", **STAGES["refine_train"].arguments(other),
    )  # fmt: skip
    for part, path in enumerate(cams, start=1):
        imported.apply(
            other, out / "again.safetensors", imported.folder / f"scores/{part}-of-2.h5", path
        )
    assert_same_weights(checkpoint, out / "again.safetensors")
    assert "going on after step 2 of 2" in caplog.text
    assert caplog.text.count(" 0 computed") == 4  # two shards of CAMs, two of scores


def test_weights_do_not_depend_on_the_threads_of_the_process(
    imported: Chain, tmp_path: Path
) -> None:
    config = imported.config(refine={"train": {"threads": 2}})
    checkpoints = []
    for threads in (1, 3):
        with fixed_threads(threads):
            checkpoints.append(imported.train(config, tmp_path / str(threads)))
            assert torch.get_num_threads() == threads
    assert_same_weights(*checkpoints)
