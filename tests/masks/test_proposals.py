"""Mask proposals in the stage: from files to labels, what reruns, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from tests.masks.mask_run import MaskRun
from tests.masks.test_masks_stage import items
from wsss.cli.files_check import missing_files
from wsss.compute.pool import WorkerError
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.data.errors import DataError
from wsss.data.images.read import read_image
from wsss.labels.proposals import Proposal
from wsss.labels.pseudo import pseudo_label
from wsss.labels.upsample import upsample
from wsss.masks.proposal_files import proposal_path, read_proposals


def bands(height: int, width: int) -> list[np.ndarray]:
    """A coarse division of an image, and a piece of one part."""
    across = np.arange(width) * 3 // width
    masks = [np.tile(across == part, (height, 1)) for part in range(3)]
    piece = masks[1].copy()
    piece[height // 2 :] = False
    return [*masks, piece]


def write(file: Path, masks: list[np.ndarray]) -> None:
    """As SAM's automatic mask generator does with ``output_mode="coco_rle"``."""
    entries = []
    for mask in masks:
        encoded: Any = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        counts = {"size": list(mask.shape), "counts": encoded["counts"].decode()}
        entries.append(
            {
                "segmentation": counts,
                "area": int(mask.sum()),
                "predicted_iou": 0.9,
                "stability_score": 0.95,
            }
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entries))


@pytest.fixture
def folder(run: MaskRun) -> Path:
    """Proposals of all images but the one without tags."""
    folder = run.folder / "proposals"
    for sample in run.samples:
        if sample.tags:
            write(proposal_path(folder, sample.id), bands(sample.height, sample.width))
    return folder


def options(folder: Path, **more: Any) -> dict[str, Any]:
    proposals = {"path": str(folder), "threshold": 0.3}
    return {"refine": "sam", "proposals": proposals, "crf": {"enabled": False}} | more


def test_masks_are_those_of_the_labels_room(run: MaskRun, folder: Path) -> None:
    scores = run.write_scores()
    shard, _ = run.make(scores, **options(folder))
    plain, _ = run.make(scores, out="plain", crf={"enabled": False})
    config = run.config(**options(folder)).masks
    actual, without, moved = items(shard), items(plain), 0
    for sample in run.samples:
        photo = read_image(sample.path)
        size = photo.shape[:2]
        maps = upsample(run.item(sample).arrays["score"], size)
        proposals = [Proposal.of(mask) for mask in bands(*size)]
        label, _ = pseudo_label(maps, sample.tags, photo, config, None, proposals)
        np.testing.assert_array_equal(actual[sample.id].arrays["label"], label)
        moved += int((label != without[sample.id].arrays["label"]).sum())
    assert moved > 100
    assert (actual["untagged"].arrays["train"] == 255).all()


def test_an_edited_file_makes_its_image_again_and_no_other(run: MaskRun, folder: Path) -> None:
    scores = run.write_scores()
    before = {k: item.key for k, item in items(run.make(scores, **options(folder))[0]).items()}
    assert before == {
        k: item.key for k, item in items(run.make(scores, **options(folder))[0]).items()
    }
    sample = run.samples[0]
    write(proposal_path(folder, sample.id), [np.ones((sample.height, sample.width), bool)])
    after = items(run.make(scores, **options(folder))[0])
    assert [image for image, item in after.items() if item.key != before[image]] == [sample.id]
    assert len(np.unique(after[sample.id].arrays["label"])) == 1


def test_missing_files_are_one_message_before_any_work(run: MaskRun, folder: Path) -> None:
    scores = run.write_scores()
    proposal_path(folder, "sub/other").unlink()
    with pytest.raises(DataError) as caught:
        run.make(scores, **options(folder))
    message = str(caught.value)
    assert message.startswith(f"{folder}: 1 of 5 images have no mask proposals, expected <id>.json")
    assert "sub/other" in message
    assert not (run.folder / "out").exists() or not list((run.folder / "out").glob("*.h5"))
    with pytest.raises(DataError, match=r"nowhere: no such folder; masks\.proposals\.path must"):
        run.make(scores, **options(folder / "nowhere"))


def test_a_file_of_another_size_is_one_message(run: MaskRun, folder: Path) -> None:
    scores, sample = run.write_scores(), run.samples[1]
    file = proposal_path(folder, sample.id)
    write(file, bands(sample.height + 1, sample.width))
    with pytest.raises(WorkerError) as caught:
        run.make(scores, **options(folder))
    message = str(caught.value)
    assert f"{file}: proposal 0 is of size [{sample.height + 1}, {sample.width}]" in message
    assert f"at the size of the photo, [{sample.height}, {sample.width}]" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is no JSON of mask proposals"),
        ("5", "holds no list of mask proposals"),
        ('{"image": {}}', "holds no list of mask proposals"),
        ("[{}]", "proposal 0 lacks 'segmentation'; expected"),
        ('[{"segmentation": [[0, 0, 1, 1, 2, 0]]}]', "proposal 0 its segmentation is no RLE"),
        ('[{"segmentation": {"size": [4, 6], "counts": [5]}}]', "not the 24 pixels"),
        ('[{"segmentation": {"size": [4, 6], "counts": "ab c"}}]', "proposal 0 its runs"),
    ],
)
def test_other_contents_are_one_message(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_proposals(file, 4, 6)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)


def test_few_bytes_that_stand_for_many_pixels_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsss.masks.proposal_files._MOST_PIXELS", 100)
    file = tmp_path / "a.json"
    whole = {"segmentation": {"size": [4, 6], "counts": [0, 24]}}
    file.write_text(json.dumps([whole] * 4))
    assert len(read_proposals(file, 4, 6)) == 4
    file.write_text(json.dumps([whole] * 9))
    with pytest.raises(DataError, match="more than 100 pixels together, by proposal 4; leave out"):
        read_proposals(file, 4, 6)


def test_files_in_the_form_of_sa_1b_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write(file, bands(4, 6))
    file.write_text(json.dumps({"image": {}, "annotations": json.loads(file.read_text())}))
    assert [proposal.area for proposal in read_proposals(file, 4, 6)] == [8, 8, 8, 4]


def config_of(**masks: Any) -> Config:
    return from_mapping({"masks": masks})


def test_one_word_chooses_the_refinement() -> None:
    assert (config_of().masks.par, config_of().masks.crf.enabled) == (False, True)
    for refine, expected in {"crf": (False, True), "par": (True, False)}.items():
        masks = config_of(refine=refine).masks
        assert (masks.par, masks.crf.enabled) == expected
        assert "refine" not in masks.effective()  # the two say it: keys do not change
    assert config_of(refine="par", crf={"iterations": 5}).masks.crf.iterations == 5
    sam = config_of(refine="sam", proposals={"path": "here"}).masks
    assert (sam.par, sam.crf.enabled) == (False, True)
    assert sam.effective()["proposals"] == {"path": "here", "threshold": 0.5}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"refine": "crf", "par": True}, "masks.refine is crf, but masks.par is true"),
        ({"refine": "par", "crf": {"enabled": True}}, "masks.crf.enabled true: drop these two"),
        ({"refine": "sam"}, "masks.proposals.path must name a folder"),
        ({"proposals": {"path": "x"}}, "but masks.refine is not sam"),
        ({"refine": "sma"}, "masks.refine"),
    ],
)
def test_contradictions_are_refused(masks: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**masks)


def test_the_check_of_a_configuration_counts_missing_files(tmp_path: Path) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "proposals"
    photos.mkdir()
    folder.mkdir()
    for name in ("a", "b", "c"):
        (photos / f"{name}.png").write_bytes(b"")
    (photos / "tags.csv").write_text("image,tags\na.png,cat\nb.png,dog\nc.png,\n")
    config = from_mapping(
        {
            "data": {"kind": "folder", "root": str(photos), "val_list": ""},
            "cams": {"splits": ["train"]},
            "masks": {"refine": "sam", "proposals": {"path": str(folder)}},
            "retrain": {"enabled": False},
        }
    )
    write(folder / "a.json", bands(4, 6))
    (warning,) = missing_files(config)
    assert "1 of 2 images have no mask proposals, expected <id>.json each: b" in warning
    write(folder / "b.json", bands(4, 6))
    assert not list(missing_files(config))
    missing = config.model_copy(
        update={"masks": config.masks.model_copy(
            update={"proposals": config.masks.proposals.model_copy(update={"path": "/no/where"})}
        )}
    )  # fmt: skip
    (warning,) = missing_files(missing)
    assert "masks.proposals.path: /no/where: no such folder" in warning
