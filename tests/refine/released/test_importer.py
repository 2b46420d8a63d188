"""Authors' checkpoints: what fits gives the same scores, what does not is told of in full."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.builders import provenance
from tests.refine.chain import Chain, assert_same_weights
from tests.refine.released.authors_files import Weights, excel_file, save, weakclip_file
from wsss._compat.mmengine_checkpoints import UnsafeCheckpointError
from wsss.artifacts.checkpoint import load_checkpoint, save_checkpoint
from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.shard import Shard
from wsss.artifacts.stage import STAGES
from wsss.config.model import Config
from wsss.refine.released.importer import import_checkpoint

pytestmark = pytest.mark.slow

METHODS = {
    "weakclip": {"method": "weakclip", "weakclip": {"width": 16, "channels": 16}},
    "excel": {"method": "excel", "excel": {"width": 16}},
}


class Release(Chain):
    """A chain, and the file that its method's authors would have released."""

    def __init__(self, folder: Path, method: str) -> None:
        super().__init__(
            folder, METHODS[method] | {"train": {"crop": 64}}, variant="published",
            cams={"source": "patch_text"}, infer={"crf": False, "scales": [1.0]},
            clip={"input_size": 64, "keep_ratio": method == "weakclip"},
        )  # fmt: skip
        self.method = method
        refiner = self.refiner(self.config(), seed=3)
        self.ours: Weights = dict(refiner.trained.state_dict())
        if method == "weakclip":
            self.theirs = weakclip_file(self.ours)
        else:
            self.theirs = excel_file(self.ours, refiner.setup.encoder_input.clip, side=5)
        self.checkpoint = folder / "ours.safetensors"
        weights = {"clip": refiner.setup.encoder_input.clip.digest}
        about = {"config": {"refine": {"method": method}}, "weights": weights}
        origin = provenance("refine_train", **about)
        save_checkpoint(self.checkpoint, self.ours, origin)

    def take(self, file: Path | None, config: Config | None = None, **options: Any) -> Path:
        base = file or self.folder / "none"
        out = base.with_name(f"{base.stem}-imported.safetensors")
        cache = self.folder / "cache"
        arguments = STAGES["refine_import"].arguments(config or self.config())
        import_checkpoint(self.manifest, file, out, cache, **options, **arguments)
        return out


@pytest.fixture(scope="module", params=sorted(METHODS))
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("form", ["pth", "distributed.pth", "bare.pth", "safetensors"])
def test_import_gives_the_same_weights(release: Release, tmp_path: Path, form: str) -> None:
    file, report = tmp_path / f"released.{form}", tmp_path / "report.json"
    if form == "safetensors":
        save_file({name: value.contiguous() for name, value in release.theirs.items()}, file)
    elif form == "bare.pth":
        torch.save(release.theirs, file)
    else:
        prefix = "module.model." if form.startswith("distributed") else ""
        save({prefix + n: v for n, v in release.theirs.items()}, file, optimizer={"state": {}})
    out = release.take(file, report=report)
    assert_same_weights(out, release.checkpoint)
    origin = load_checkpoint(out)[1]
    assert origin.stage == "refine_import"
    assert origin.weights["authors"] == digest_file(file) == origin.inputs[file.name]
    told = json.loads(report.read_text())
    groups = {name: group["status"] for group in told["groups"] for name in group["names"]}
    assert set(told["used"]) | set(groups) >= set(release.theirs)  # nothing is lost without a word
    assert ("optimizer" in groups) == (form in {"pth", "distributed.pth"})


def test_scores_and_predictions_are_those_of_the_network(release: Release, tmp_path: Path) -> None:
    imported = release.take(save(release.theirs, tmp_path / "released.pth"))
    for make in (release.apply, release.predict):
        paths = (
            make(release.config(), checkpoint, tmp_path / f"{make.__name__}-{index}.h5")
            for index, checkpoint in enumerate((imported, release.checkpoint))
        )
        with Shard(next(paths)) as ours, Shard(next(paths)) as theirs:
            assert ours.ids == theirs.ids
            for item in ours:
                for name, array in theirs.read(item.id).arrays.items():
                    np.testing.assert_array_equal(item.arrays[name], array)
                    assert array.size


def test_what_is_of_no_use_is_told_by_group(release: Release, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    release.take(save(release.theirs, tmp_path / "released.pth", optimizer={}), report=report)
    groups = {g["why"].split(":")[0]: g for g in json.loads(report.read_text())["groups"]}
    assert groups["entries next to the weights, for the training"]["names"] == ["meta", "optimizer"]
    if release.method == "weakclip":
        dead = groups[
            "co-attention layers before the last of a stack, whose results the release never uses"
        ]
        assert dead["status"] == "unused"
        assert len(dead["names"]) == 80  # as many as get no gradient in the golden data
        assert any("rows from" in why for why in groups)
    else:
        copy = groups["copy of the frozen CLIP"]["names"]
        assert "encoder.visual.conv1.weight" in copy
        assert len(groups["attention of the calibrated blocks, wrapped once more"]["names"]) == 4
        resized = [group["names"] for why, group in groups.items() if why.startswith("positions")]
        assert resized == [["encoder.visual.positional_embedding"]]


def test_everything_that_does_not_fit_is_in_one_message(release: Release, tmp_path: Path) -> None:
    theirs = dict(release.theirs)
    names = [
        n for n in theirs if re.match(r"(neck|decode_head|decoder)", n) and n.endswith("weight")
    ]
    gone, bent, odd = names[:2], names[2:4], names[4]
    for name in gone:
        del theirs[name]
    for name in bent:
        theirs[name] = torch.zeros(3, 4)
    theirs[odd] = torch.full_like(theirs[odd], float("nan"))
    theirs |= {"par.kernel": torch.zeros(5), "text_bank": torch.zeros(2)}
    file = save(theirs, tmp_path / "released.pth")
    with pytest.raises(ArtifactError) as caught:
        release.take(file)
    message = str(caught.value)
    for name in [*gone, *bent, odd, "par.kernel: 5", "text_bank: 2"]:
        assert name in message
    for line in ("missing (2):", "of another shape (2):", "unknown (2):", "not finite (1):"):
        assert line in message
    assert f"{bent[0]} is 3 x 4, expected" in message
    assert not list(tmp_path.glob("*.safetensors"))


def test_names_can_be_left_out_on_purpose(release: Release, tmp_path: Path) -> None:
    theirs = release.theirs | {"par.kernel": torch.zeros(5), "bank": torch.zeros(2)}
    file, report = save(theirs, tmp_path / "released.pth"), tmp_path / "report.json"
    with pytest.raises(ArtifactError, match=r"unknown \(1\):\n    bank: 2"):
        release.take(file, leave_out=["par."])
    assert_same_weights(
        release.take(file, report=report, leave_out=["par.", "bank"]), release.checkpoint
    )
    groups = {g["why"]: g["names"] for g in json.loads(report.read_text())["groups"]}
    assert groups["named with --leave-out"] == ["par.kernel", "bank"]


def test_half_precision_is_widened(release: Release, tmp_path: Path) -> None:
    half = {n: v.half() if v.is_floating_point() else v for n, v in release.theirs.items()}
    tensors = load_checkpoint(release.take(save(half, tmp_path / "half.pth")))[0]
    assert all(v.dtype in (torch.float32, torch.int64) for v in tensors.values())


class _Call:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_code_beside_the_weights_is_refused_and_does_not_run(
    release: Release, tmp_path: Path
) -> None:
    trace = tmp_path / "ran"
    file = save(release.theirs, tmp_path / "bad.pth", meta=_Call(trace))
    with pytest.raises(UnsafeCheckpointError, match=r"bad\.pth: refused, it names .*which is code"):
        release.take(file)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"a": torch.zeros(1), "b": 3}}, r"tensors by name, found 'b' \(int\)"),
        ({"epoch": 3}, r"found 'epoch' \(int\)"),
        ({"state_dict": {}}, "found nothing"),
    ],
)
def test_what_is_no_state_dict_is_refused(
    release: Release, tmp_path: Path, content: object, message: str
) -> None:
    file = tmp_path / "odd.pth"
    torch.save(content, file)
    with pytest.raises(ArtifactError, match=message):
        release.take(file)
    (tmp_path / "cut.safetensors").write_bytes(b"123")
    with pytest.raises(ArtifactError, match="is damaged or no safetensors"):
        release.take(tmp_path / "cut.safetensors")
    with pytest.raises(ArtifactError, match="no such file"):
        release.take(tmp_path / "none.pth")


def test_options_that_the_release_was_not_trained_with_are_refused(
    release: Release, tmp_path: Path
) -> None:
    file = save(release.theirs, tmp_path / "released.pth")
    options = {"weakclip": ("co_attention", "unchained"), "excel": ("features", "aliased")}
    key, trained = options[release.method]
    with pytest.raises(ArtifactError) as caught:
        release.take(file, release.config(variant="corrected"))
    message = str(caught.value)
    assert re.search(rf"refine\.{release.method}\.{key} is .*trained with '{trained}'", message)
    assert "clip.normalization is 'clip', the checkpoint was trained with 'imagenet'" in message


def test_a_checkpoint_of_this_pipeline_is_taken_as_it_is(release: Release, tmp_path: Path) -> None:
    file = tmp_path / "ours.safetensors"
    file.write_bytes(release.checkpoint.read_bytes())
    out = release.take(file)
    assert_same_weights(out, release.checkpoint)
    assert load_checkpoint(out)[1] == load_checkpoint(release.checkpoint)[1]
    other = release.config(refine=next(v for k, v in METHODS.items() if k != release.method))
    with pytest.raises(ArtifactError, match=f"was trained for the refiner '{release.method}'"):
        release.take(file, other)


def test_methods_without_a_release_say_so(release: Release, tmp_path: Path) -> None:
    file = save(release.theirs, tmp_path / "released.pth")
    weclip = release.config(
        refine={"method": "weclip", "weclip": {"crop_visibility": "image"}}, variant="corrected"
    )
    with pytest.raises(ValueError, match="released code are read for excel and weakclip alone"):
        release.take(file, weclip)
    with pytest.raises(ValueError, match=r"pass a file or set refine\.checkpoint"):
        release.take(None)


def test_training_and_importing_exclude_each_other(release: Release, tmp_path: Path) -> None:
    config = release.config(refine={"checkpoint": "elsewhere.pth"})
    with pytest.raises(ValueError, match=r"checkpoint is 'elsewhere\.pth', so nothing is trained"):
        release.train(config, tmp_path)
    with pytest.raises(ArtifactError, match=r"elsewhere\.pth: no such file"):
        release.take(None, config)


OTHER_CLIPS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "visual.conv1.weight": (lambda value: value * 1.01, "differs by up to"),
    "visual.positional_embedding": (lambda value: value.flip(0), "differs by up to"),
    "token_embedding.weight": (lambda value: value[:7], r"shape \(7, \d+\), expected"),
}


@pytest.mark.parametrize("release", ["excel"], indirect=True)
@pytest.mark.parametrize("name", OTHER_CLIPS)
def test_excel_on_another_clip_is_refused(release: Release, tmp_path: Path, name: str) -> None:
    (change, message), key = OTHER_CLIPS[name], f"encoder.{name}"
    file = save(release.theirs | {key: change(release.theirs[key])}, tmp_path / "released.pth")
    with pytest.raises(ArtifactError, match=f"{name}: {message}") as caught:
        release.take(file)
    assert "other than in the encoder in use (clip.model, clip.pretrained) (1)" in str(caught.value)
