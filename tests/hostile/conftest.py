"""A data set that tests make hostile, and a check that no payload of it runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from wsss.config.model import DEMO

from .harness import Outcome, wsss


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30), **options: Any) -> Path:
    """Write a good photo of this height and width."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **{"format": "JPEG"} | options)
    return path


@dataclass
class Folder:
    """Photos with a table of tags, and the configuration that reads them."""

    base: Path

    @property
    def root(self) -> Path:
        return self.base / "photos"

    @property
    def manifest(self) -> Path:
        return self.base / "manifest"

    def configure(self, **sections: Any) -> Path:
        data = {
            "kind": "folder",
            "root": str(self.root),
            "val_list": "",
            "classes": ["cat", "dog"],
            "quarantine_limit": 1.0,
        } | sections.pop("data", {})
        chain = {
            "compute": {"workers": 1, "device": "cpu"},
            "clip": dict(DEMO["clip"]),
            "cams": {"splits": ["train"]},
        }
        path = self.base / "run.yaml"
        path.write_text(yaml.safe_dump(chain | sections | {"data": data}))
        return path

    def table(self, text: str | bytes) -> None:
        content = text.encode() if isinstance(text, str) else text
        (self.root / "tags.csv").write_bytes(content)

    def ingest(self, **sections: Any) -> Outcome:
        return wsss("ingest", "--out", self.manifest, "--config", self.configure(**sections))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """One good photo, tagged."""
    folder = Folder(tmp_path)
    photo(folder.root / "good.jpg")
    folder.table("image,tags\ngood.jpg,cat\n")
    return folder


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No payload ran."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("ran")), "a payload ran"
