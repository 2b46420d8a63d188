"""The configuration of a run on a folder of photos, from a few choices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from wsss.config.base import overlay
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.config.paths import expand_path

Recipe = Literal["fast", "best"]
NAME = "photos"
RECIPES: Final[Mapping[Recipe, Mapping[str, Any]]] = {
    "fast": {"refine": {"method": "none"}},
    "best": {"refine": {"method": "weclip"}},
}
"""fast: CAMs, affinity and CRF, nothing is trained. best: a refiner is trained on the CAMs."""
HEADER = "# All settings of these photos."
_FOLDER = "."
_FEW = 200
_PATHS = (
    "data.root", "data.tags", "data.masks", "cams.external.path", "masks.proposals.path",
    "refine.checkpoint", "retrain.corrected",
)  # fmt: skip
"""As the user's folder has them; the results have another one."""
_NAMES_OR_FILES = (
    "clip.model", "clip.pretrained", "dino.model", "dino.pretrained", "retrain.init",
    "cams.patch_text.tse.knowledge", "data.train_list", "data.val_list",
)  # fmt: skip


def photo_settings(
    folder: Path,
    recipe: Recipe,
    *,
    tags: Path | None = None,
    classes: list[str] | None = None,
    photos: int = 0,
    changes: Mapping[str, Any] | None = None,
    where: str = "",
) -> Config:
    """The configuration, with absolute paths, so that it is true in every folder.

    Args:
        recipe: see `RECIPES`.
        tags: the table; None: ``tags.csv`` in the folder.
        classes: names; None: all tags of the table.
        photos: their number; few are one part, so that each stage loads its model once.
        changes: laid over it: values of a configuration file, by section and key.
        where: their source, for messages.

    Raises:
        ConfigError: a change is no valid configuration, or asks for other photos, for results in
            another place or for several runs.
    """
    root = folder.absolute()
    shards = 1 if photos <= _FEW else 4
    base: dict[str, Any] = {
        "name": NAME,
        "shards": shards,
        "compute": {"workers": max(1, (os.cpu_count() or 1) // shards)},
        "data": {
            "kind": "folder",
            "root": str(root),
            "tags": str((tags or root / "tags.csv").absolute()),
            "classes": classes or [],
            "val_list": "",
        },
        "cams": {"splits": ["train"], "affinity": {"enabled": True}},
        "masks": {"background": {"value": 1.0}},
        "retrain": {"enabled": False},
        "pictures": {"folder": _FOLDER},
    }
    mapping = overlay(overlay(base, RECIPES[recipe]), changes or {})
    _make_absolute(mapping)
    config = from_mapping(mapping, where=where or "the configuration of the photos")
    _refuse_other_photos(config, root)
    _refuse_other_results(config)
    return config


def _refuse_other_photos(config: Config, root: Path) -> None:
    """Refuse data other than the folder that the command is given, and checks for photos."""
    if config.data.kind != "folder":
        raise ConfigError("--config: leave out data.kind; `wsss photos` reads a folder of photos")
    if os.path.realpath(config.data.root) != os.path.realpath(root):
        raise ConfigError(
            "--config: leave out data.root; `wsss photos` is given the folder of the photos"
        )


def _refuse_other_results(config: Config) -> None:
    """Refuse what leads results to other places than those that the command reads and names."""
    elsewhere = {
        "name": config.name != NAME,
        "pictures.folder": config.pictures.folder != _FOLDER,
    }
    several = {
        "sweep": bool(config.sweep),
        "runs": bool(config.runs),
        "matrix": bool(config.matrix.axes),
        "supervision": config.supervision != "tags",
    }
    for key in (key for key, applies in elsewhere.items() if applies):
        raise ConfigError(
            f"--config: leave out {key}; --out says where `wsss photos` writes its results"
        )
    for key in (key for key, applies in several.items() if applies):
        raise ConfigError(
            f"--config: leave out {key}, or use the workflow with workflow/presets/photos.yaml; "
            "`wsss photos` is one run, which learns from tags"
        )


def _make_absolute(mapping: dict[str, Any]) -> None:
    """Replace relative paths by absolute ones. Names, and what is no mapping, stay."""
    for name in (*_PATHS, *_NAMES_OR_FILES):
        *sections, key = name.split(".")
        section: Any = mapping
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        value = section.get(key) if isinstance(section, dict) else None
        if isinstance(value, str) and value:
            local = value.removeprefix("local-dir:")
            path = expand_path(local)
            if name in _PATHS or path.is_file() or local != value:
                section[key] = value.removesuffix(local) + str(path.absolute())


def settings_yaml(config: Config, command: str) -> str:
    """The whole configuration as a file.

    Args:
        config: what is in force.
        command: that continues the run.
    """
    values = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return (
        f"{HEADER} `wsss photos` writes this file again each time.\n"
        "# Its option --config lays your own values over it. To go on without that command:\n"
        f"#   {command}\n{values}"
    )
