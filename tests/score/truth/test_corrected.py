"""Corrected masks of some training images: what is read, what is refused, and how it is named."""

import logging
from pathlib import Path

import numpy as np
import pytest

from wsss.artifacts.shard import Shard
from wsss.config.base import MIXED
from wsss.config.compute import ComputeConfig
from wsss.config.errors import ConfigError
from wsss.score.truth.corrected import RECORD, corrections_state
from wsss.score.truth.corrected import run as write_corrected
from wsss.score.truth.errors import TruthError

from ..conftest import Run, save_mask


def write(run: Run, folder: Path, out: Path, state: str = "") -> int:
    compute = ComputeConfig(workers=1)
    return write_corrected(
        run.manifest_dir, out, corrected=str(folder), compute=compute, state=state
    )


def test_images_with_a_mask_alone_are_written_and_the_folder_is_watched(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, out = tmp_path / "hand", tmp_path / "corrected_masks/train.h5"
    chosen = [run.samples[0].id, run.samples[3].id]  # one in a sub folder
    for image in chosen:
        save_mask(folder / f"{image}.png", run.truth[image])
    save_mask(folder / "imag3.png", run.truth[chosen[1]])
    state = corrections_state(str(folder), str(out.parent))
    with caplog.at_level(logging.INFO, logger="wsss"):
        assert write(run, folder, out, state) == 2
    assert "1 PNGs belong to no image of the data set and are not used: imag3" in caplog.text
    assert "2 of 6 training images have a corrected mask" in caplog.text
    with Shard(out, kind="corrected_masks") as shard:
        assert shard.provenance.supervision == "mixed"
        assert shard.provenance.config == {"retrain.corrected": str(folder)}
        assert shard.ids == chosen
        for item in shard:
            np.testing.assert_array_equal(item.arrays["train"], run.truth[item.id])
            assert MIXED in item.attrs["origin"]
    assert out.with_name(RECORD).is_file()
    changed = folder / f"{chosen[0]}.png"
    content = changed.read_bytes()
    changed.unlink()
    changed.write_bytes(content)  # another time, the same mask
    assert corrections_state(str(folder), str(out.parent)) == state
    save_mask(changed, 3 - run.truth[chosen[0]] % 4)
    edited = corrections_state(str(folder), str(out.parent))
    changed.unlink()
    assert len({state, edited, corrections_state(str(folder), str(out.parent))}) == 3


def test_what_cannot_be_learned_from_is_refused(run: Run, tmp_path: Path) -> None:
    folder, out, image = tmp_path / "hand", tmp_path / "c.h5", run.samples[1].id
    with pytest.raises(TruthError, match=r"hand: no such folder; expected <id>\.png"):
        write(run, folder, out)
    save_mask(folder / "elsewhere.png", run.truth[image])
    with pytest.raises(TruthError, match="hand: holds no mask of a training image"):
        write(run, folder, out)
    save_mask(folder / f"{image}.png", run.truth[image][:-1])
    with pytest.raises(
        TruthError, match=rf"{image}.png: the truth of '{image}' is .* they must be"
    ):
        write(run, folder, out)
    save_mask(folder / f"{image}.png", np.full_like(run.truth[image], 9))
    with pytest.raises(TruthError, match=f"the truth of '{image}' has label 9, but the class list"):
        write(run, folder, out)
    with pytest.raises(ConfigError, match="names no folder"):
        write_corrected(run.manifest_dir, out, corrected="", compute=ComputeConfig(workers=1))
    assert not out.exists()
