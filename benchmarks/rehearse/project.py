"""A copy of the project with reduced presets and tables, and what these need."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.rehearse import photos as data_sets
from benchmarks.rehearse import weights
from benchmarks.rehearse.reductions import reduce
from wsss.config.base import overlay
from wsss.config.load import from_mapping, merged_yaml
from wsss.config.model import Config
from wsss.config.paths import SHARED_VARIABLE, expand_path
from wsss.config.safe_yaml import read_yaml
from wsss.pipeline.products import PRODUCTS
from wsss.pipeline.runs import Runs

ROOT = Path(__file__).parents[2]
PRESET_FOLDER, TABLES = "workflow/presets", "workflow/tables"
TABLE = "table_"
_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "wsss": (), "envs": (), "workflow": ("presets", "tables"),
}  # fmt: skip
_COMMAND = re.compile(
    rf"^#.*--configfile((?: {PRESET_FOLDER}/\S+\.yaml)+)(?: --((?: \S+)+))?$", re.MULTILINE
)
_SUBSETS = {"voc": "voc-subset", "coco": "coco-subset", "folder": "voc-subset"}


def targets() -> list[str]:
    """All presets, and the targets of all tables, as ``snakemake`` calls them."""
    presets = sorted(path.stem for path in (ROOT / PRESET_FOLDER).glob("*.yaml"))
    return presets + [f"{TABLE}{path.stem}" for path in sorted((ROOT / TABLES).glob("*.yaml"))]


def preset_files(preset: str) -> list[str]:
    """The files of a preset: itself, after the one that its head lays it over, if it names one."""
    return _head_command(preset)[0]


def preset_targets(preset: str) -> list[str]:
    """The targets that the command in the head of a preset names; none: the whole run."""
    return _head_command(preset)[1]


def _head_command(preset: str) -> tuple[list[str], list[str]]:
    """Configuration files and targets of the first command in its head that ends with it."""
    path = f"{PRESET_FOLDER}/{preset}.yaml"
    for files, names in _COMMAND.findall((ROOT / path).read_text(encoding="utf-8")):
        if files.split()[-1] == path:
            return files.split(), names.split()
    return [path], []


@functools.cache
def configs_of(target: str, root: Path) -> Mapping[str, Config]:
    """The configurations of all runs whose products a target needs, by their folder.

    Args:
        target: a preset, or ``table_…``.
        root: the project whose presets are read: this one, or the reduced copy.
    """
    is_table = target.startswith(TABLE)
    files = [] if is_table else [root / file for file in preset_files(target)]
    tables = sorted((root / TABLES).glob("*.yaml"))
    with contextlib.chdir(root):  # `shards: auto` depends on the parts that a run has there
        runs = Runs(merged_yaml(root / "config.yaml", *files), tables=tables)
    names = runs.tables[target.removeprefix(TABLE)].values() if is_table else runs.final
    producers = (runs.producer(product, name) for name in names for product in PRODUCTS)
    return {name: runs[name].config for name in dict.fromkeys([*names, *producers])}


def prepare(folder: Path, photos: tuple[int, int]) -> None:
    """Copy the project, with presets and tables reduced; unchanged files stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, left_out in _FOLDERS.items():
        _remove_vanished(ROOT / name, folder / name)
        ignore = shutil.ignore_patterns("__pycache__", *left_out)
        shutil.copytree(ROOT / name, folder / name, ignore=ignore, dirs_exist_ok=True)
    shutil.copy2(ROOT / "Snakefile", folder)
    base = merged_yaml(ROOT / "config.yaml")
    whole = _with_defaults(base)
    _write(folder / "config.yaml", reduce(base, base=whole, photos=photos, whole=True))
    for path in sorted((ROOT / PRESET_FOLDER).glob("*.yaml")):
        files = preset_files(path.stem)
        below = _with_defaults(merged_yaml(ROOT / "config.yaml", *(ROOT / f for f in files)))
        content = reduce(read_yaml(path), base=below, photos=photos, whole=len(files) == 1)
        _write(folder / PRESET_FOLDER / path.name, content)
    for path in sorted((ROOT / TABLES).glob("*.yaml")):
        _write(folder / TABLES / path.name, _reduced_table(read_yaml(path), base, photos))


def provide(target: str, shared: Path, photos: tuple[int, int], folder: Path) -> None:
    """Write the data and the weights that a target reads, where its presets expect them.

    The current folder is ``folder``, and its ``shared`` is WSSS_SHARED.

    Args:
        target: a preset, or ``table_…``.
        shared: the real WSSS_SHARED.
        photos: training and held-out images.
        folder: the reduced copy.
    """
    link = Path(os.environ[SHARED_VARIABLE]) / "weights"
    if not link.exists():
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(shared / "weights")
    for config in configs_of(target, ROOT).values():
        weights.write_clip(config)
        weights.write_dino(config)
        weights.write_backbone(config)
    for config in configs_of(target, folder).values():
        kind, root = config.data.kind, expand_path(config.data.root)
        lay_out = {
            "voc": data_sets.lay_out_voc,
            "coco": data_sets.lay_out_coco,
            "folder": data_sets.lay_out_folder,
        }
        if kind in lay_out:
            lay_out[kind](shared / "data" / _SUBSETS[kind], root, photos)
        if config.cams.source == "external":
            data_sets.write_seeds(config, expand_path(config.cams.external.path))
        weights.write_checkpoint(config)


def _with_defaults(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with every value that is in force, so that also defaults are reduced."""
    return from_mapping(mapping).model_dump(mode="json")


def _below(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """What the changes of a table's row are laid over."""
    mapping = dict(base)
    for name in [row.get("preset", ""), *row.get("overlays", [])]:
        if name:
            file, _, run = name.partition(":")
            content = read_yaml(ROOT / PRESET_FOLDER / f"{file}.yaml")
            mapping = overlay(mapping, content["runs"][run] if run else content)
    return mapping


def _reduced_table(
    table: Mapping[str, Any], base: Mapping[str, Any], photos: tuple[int, int]
) -> dict[str, Any]:
    """A table whose changes of presets are reduced."""
    result = dict(table)
    if "changes" in table:
        whole = _with_defaults(base)
        result["changes"] = reduce(table["changes"], base=whole, photos=photos, whole=False)
    result["rows"] = []
    for row in table["rows"]:
        below = _with_defaults(overlay(_below(row, base), table.get("changes", {})))
        changes = row.get("changes")
        reduced = reduce(changes, base=below, photos=photos, whole=False) if changes else None
        result["rows"].append(dict(row) | ({"changes": reduced} if reduced else {}))
    return result


def _remove_vanished(source: Path, copy: Path) -> None:
    """Delete modules of the copy that the project has no more."""
    for path in copy.rglob("*.py"):
        if not (source / path.relative_to(copy)).exists():
            path.unlink()


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write YAML, or leave a file that says the same, so that nothing reruns."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
