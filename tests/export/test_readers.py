"""Exports are read by other programs: pycocotools, datumaro, supervision, label-studio-sdk.

They do not get along with the packages of this project. `make test-readers` builds an
environment of their own; WSSS_READERS names its interpreter.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from .conftest import NAMES, Results

READERS = os.environ.get("WSSS_READERS", "")
EXACT = {
    "pycocotools, COCO", "pycocotools, polygons", "supervision, COCO", "label-studio-sdk",
    "datumaro, COCO", "datumaro, CVAT", "OpenCV, folder",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not READERS, reason="WSSS_READERS is not set: make test-readers")
def test_other_programs_read_what_was_exported(results: Results, tmp_path: Path) -> None:
    truth = {f"{split}/{image}": labels for (split, image), labels in results.labels.items()}
    np.savez(tmp_path / "truth.npz", **truth)
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    for form in ("coco", "label-studio", "folder"):
        results.export(form, tmp_path / form)
    results.export("coco", tmp_path / "polygons", polygons=True, tolerance=0)
    results.export("yolo", tmp_path / "yolo", tolerance=0)
    results.export("cvat", tmp_path / "cvat.zip")
    done = subprocess.run(
        [READERS, Path(__file__).with_name("readers.py"), tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ious = json.loads(done.stdout.splitlines()[-1])
    assert ious.pop("supervision, YOLO") > 0.99
    assert ious == dict.fromkeys(EXACT, 1.0)
