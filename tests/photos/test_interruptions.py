"""`wsss predict` that is interrupted, and continued by the same command."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.demo_checkpoints import write_segmenter
from tests.photos.test_photo_run import draw_photos, run
from wsss.__main__ import main

_COUNT, _SECONDS = 6, 120


def large_photos(folder: Path) -> None:
    """Photos that take a while each."""
    draw_photos(folder, {f"in/{index}": index for index in range(_COUNT)})
    for path in folder.rglob("*.jpg"):
        Image.open(path).resize((1200, 900)).save(path)


def masks(out: Path) -> dict[str, int]:
    """When each mask was written whose other files are there, too."""
    drawn = [path.relative_to(out / "thumbnails") for path in (out / "thumbnails").rglob("*.png")]
    return {str(path): (out / "masks" / path).stat().st_mtime_ns for path in drawn}


def predict(folder: Path, command: Sequence[str]) -> None:
    """Run the command in this process, one photo after another."""
    # A shell lets jobs in the background ignore Ctrl-C, and with them the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    os.chdir(folder)
    sys.argv[:] = command
    main()


def interrupt(folder: Path, out: Path, number: signal.Signals, *command: str) -> dict[str, int]:
    """Send a signal once two photos are drawn anew; gives the masks that are there then."""
    before = masks(out).items()
    process = multiprocessing.get_context("fork").Process(target=predict, args=(folder, command))
    process.start()
    end = time.monotonic() + _SECONDS
    while len(masks(out).items() - before) < 2:
        assert process.is_alive(), "it ended before it could be interrupted"
        assert time.monotonic() < end
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(_SECONDS)
    assert process.exitcode
    drawn = dict(masks(out).items() - before)
    assert len(drawn) < _COUNT
    if number == signal.SIGKILL:  # the last one may not be noted yet
        del drawn[max(drawn, key=lambda name: drawn[name])]
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_prediction_continues(tmp_path: Path, number: signal.Signals) -> None:
    """The first one, whose folder has no record yet, and a later one, which draws all again."""
    out = tmp_path / "new-predicted"
    large_photos(tmp_path / "new")
    write_segmenter(tmp_path / "run/segmenter/weights.safetensors")
    command = ("wsss", "predict", "new", "--weights", "run", "--long-side", "256")
    for options in ((), ("--crf",)):
        drawn = interrupt(tmp_path, out, number, *command, *options)
        screen = run(tmp_path, *command, *options).stdout
        assert f"masks of {_COUNT} photos: new-predicted/masks" in screen
        after = masks(out)
        assert len(after) == _COUNT
        assert {name: after[name] for name in drawn} == drawn
    (tmp_path / "new/in/0.jpg").unlink()
    Path(tmp_path / "new/in/1.jpg").rename(tmp_path / "new/in/1.jpeg")
    assert "masks of 5 photos" in run(tmp_path, *command, "--crf", "--out", str(out)).stdout
    assert masks(out) == {name: when for name, when in after.items() if name != "in/0.png"}
    assert "../new/in/1.jpeg" in (out / "index.html").read_text("utf-8")
