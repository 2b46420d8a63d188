"""A photo that is not the one of ingest is never used: each command that reads it says so."""

import re
from pathlib import Path

import pytest

from .chain import CHAIN
from .conftest import Undisturbed

pytestmark = pytest.mark.slow
READ_PHOTOS = frozenset({
    "cams", "refine-train", "refine-apply", "refine-predict", "masks", "masks, 2 processes",
    "retrain", "predict", "contact-sheet",
})  # fmt: skip
_MESSAGE = re.compile(r"error: .*data/JPEGImages/\S+: has changed since ingest; run ingest again")


def test_no_command_takes_another_photo(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """The photos decode to the same pixels: only their digest tells that they are others.

    Commands with a manifest that do not read photos end well.
    """
    photos = list((undisturbed.base / "data/JPEGImages").iterdir())
    contents = [photo.read_bytes() for photo in photos]
    for photo, content in zip(photos, contents, strict=True):
        photo.write_bytes(content + b"\0")
    refusing = set()
    try:
        for kind in CHAIN:
            if "--manifest {base}/manifest" not in kind.argv:
                continue
            command = kind.command(undisturbed.base, tmp_path / kind.name)
            done = undisturbed.forks.run(command, pools=kind.pools)
            if done.code:
                assert _MESSAGE.search(done.output), f"{kind.name}: {done.output}"
                assert not any((tmp_path / kind.name / name).exists() for name in kind.outputs)
                refusing.add(kind.name)
    finally:
        for photo, content in zip(photos, contents, strict=True):
            photo.write_bytes(content)
    assert refusing == READ_PHOTOS
