"""Bad configurations: each has its message with the file, the key and what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsss.compute.device import torch_has_cuda
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.pipeline.runs import Runs

from .harness import wsss

LAUGHS = 'a0: &a0 ["lol", "lol"]\n' + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)

FILES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "Python object": (
        '!!python/object/apply:os.system ["touch ran"]',
        ("is not valid YAML", "could not determine a constructor"),
    ),
    "Python name": ("name: !!python/name:os.system", ("could not determine a constructor",)),
    "template": ("__use_yte__: true\nname: ?open('ran', 'w')\n", ("__use_yte__: unknown key",)),
    "laughs": (LAUGHS + "name: *a11", ("stands for more than 100000 values",)),
    "itself": ("sweep: &a {b: [*a]}", ("*a refers to what it is a part of",)),
    "merged itself": ("data: &a\n  <<: *a\n", ("refers to what it is a part of",)),
    "duplicate key": ("name: a\nname: b\n", ("the key 'name' is written twice; keep one",)),
    "duplicate section": ("data: {root: a, root: b}", ("the key 'root' is written twice",)),
    "a list": ("- a\n- b\n", ("expected a mapping of sections, found list",)),
    "a text": ("hello", ("expected a mapping of sections, found str",)),
    "half": ("data: {root: [", ("is not valid YAML",)),
    "tabs": ("data:\n\troot: a\n", ("is not valid YAML",)),
    "NUL": (b"name: a\0b", ("is not valid YAML", "characters are not allowed")),
    "Latin-1": (b"name: caf\xe9", ("is not UTF-8 text (byte 9)", "save it as UTF-8")),
    "UTF-16": ("name: a".encode("utf-16"), ("is not UTF-8 text",)),
    "deep": ("name: " + "[" * 100_000, ("more than 40 deep",)),
    "2 MB": ("# " + "x" * 2**21, ("has more than 1048576 bytes",)),
    "no date": ("name: 2001-99-99", ("is not valid YAML: month must be in 1..12",)),
    "5000 digits": ("seed: " + "9" * 5000, ("is not valid YAML", "4300")),
    "5000 hexadecimal digits": ("seed: 0x" + "f" * 5000, ("seed: is a whole number beyond 64",)),
    "list as key": ("[a, b]: c", ("unhashable key",)),
    "number as key": ("1: a", ("the key 1 is read as 1; put it in quotation marks",)),
    "yes, no and the like": (
        "data: {classes: [yes, off, 007, 1.0e+3, 12:30, 2024-01-01, ~]}",
        tuple(
            f"data.classes.{index}: found {value}; put it in quotation marks"
            for index, value in enumerate(
                ("True", "False", "7", "1000.0", "750", "2024-01-01", "None")
            )
        ),
    ),
    "no as text": (
        "name: no\ndata: {val_list: no, prompts: {cat: on}}",
        (
            "name: found False; put it in quotation marks",
            "data.val_list: found False; put it in",
            "data.prompts.cat: found True; put it in",
        ),
    ),
    "off as a choice": (
        "infer: {dropout: off}",
        ("infer.dropout: found False; put it in quotation marks; expected 'on' or 'off'",),
    ),
    "yes as a key": (
        "data: {prompts: {yes: a}}",
        ("the key yes is read as True; put it in quotation marks", "line 1, column 18"),
    ),
    "a date as a key": ("2024-01-01: a", ("the key 2024-01-01 is read as 2024-01-01; put it in",)),
    "yes as a number": ("shards: yes", ("shards: found True, expected a number",)),
    "no among numbers": (
        "predict: {scales: [1.0, no]}",
        ("predict.scales: found False, expected",),
    ),
    "NaN": ("retrain: {lr: .nan}", ("retrain.lr: is nan, expected a finite number",)),
    "infinity": ("predict: {scales: [1.0, .inf]}", ("predict.scales.1: is inf",)),
    "huge": ("shards: 1000000000000", ("shards: expected a number less than or equal to",)),
    "negative": ("compute: {workers: -1}", ("compute.workers: expected a number greater than 0",)),
    "wrong type": ("shards: many", ("shards: expected a whole number", "found 'many'")),
    "10 kB in a message": (f"shards: {'x' * 10_000}", ("found 'xxxx",)),
    "misspelt": ("data: {rot: a}", ("data.rot: unknown key; did you mean data.root?",)),
    "a way out": ("name: ../elsewhere", ("name: expected letters, digits, full stops",)),
    "command as name": ('name: "a; touch ran"', ("name: expected letters, digits, full stops",)),
    "line end in a name": ('name: "a\\n"', ("name: holds the control character '\\n'",)),
    "command as device": (
        'compute: {device: "cpu; touch ran"}',
        ("compute.device: found 'cpu; touch ran', expected auto, cpu, cuda or cuda:1 …",),
    ),
    "NUL in a path": ('data: {root: "a\\0b"}', ("data.root: holds the control character",)),
    "line end in a path": ('data: {root: "a\\nb"}', ("data.root: holds the control character",)),
    "wildcard in a path": (
        'data: {root: "photos/{run}"}',
        ("data.root: holds {run}, which the workflow would replace; rename it",),
    ),
    "control character in a key": ('data: {prompts: {"\\e[2J": a}}', ("a key of data.prompts",)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_refused(tmp_path: Path, name: str) -> None:
    content, pieces = FILES[name]
    path = tmp_path / "run.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    outcome = wsss("config", "check", "--config", path)
    outcome.refused("run.yaml", *pieces)
    assert len(outcome.text) < 2000


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "gone"])
def test_configurations_that_are_not_regular_files_are_refused(tmp_path: Path, kind: str) -> None:
    paths = {name: tmp_path / name for name in ("pipe", "folder", "gone")}
    os.mkfifo(paths["pipe"])
    paths["folder"].mkdir()
    path = paths.get(kind, Path("/dev/zero"))
    wsss("config", "check", "--config", path).refused(str(path), "pass an existing YAML file")


@pytest.mark.skipif(torch_has_cuda(), reason="this torch has CUDA")
def test_a_check_warns_of_a_gpu_that_only_other_machines_may_have(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("compute: {device: cuda}")
    command = [sys.executable, "-m", "wsss", "config", "check", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "device: cuda" in done.stdout
    assert "warning: jobs that run here: no GPU: this torch has no CUDA; set" in done.stderr


def test_an_option_of_the_command_line_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("")
    command = ("cams", "--manifest", "m", "--out", "o", "--config", path, "--device", "mps")
    wsss(*command).refused("options of the command line", "compute.device: found 'mps', expected")


RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "the folder above": ({"runs": {"..": {}}}, "a run would be called '..'"),
    "two folders up": ({"matrix": {"cams": {"..": {}}, "refine": {"..": {}}}}, "called '..'"),
    "hidden": ({"runs": {".cache": {}}}, "a run would be called '.cache'"),
    "an option": ({"runs": {"-rf": {}}}, "a run would be called '-rf'"),
    "no name": ({"runs": {"": {}}}, "a run would be called ''"),
    "a folder of every run": ({"runs": {"manifest": {}}}, "cannot be called 'manifest'"),
    "its case": ({"matrix": {"cams": {"a": {}}, "refine": {"Masks": {}}}}, "called 'Masks'"),
    "a folder of all runs": ({"name": "tables"}, "a run cannot be called 'tables'"),
    "too long together": (
        {"name": "-".join(map(str, range(99)))[:181], "runs": {"r" * 19: {}}},
        f"and the run '{'r' * 19}' have 201 bytes together, over 200; shorten",
    ),
    "for ever": ({"name": f"v1{'0' * 20}"}, "name: ends in 20 times '0'"),
    "for ever, as a value": ({"sweep": {"clip.model": ["ab" * 20]}}, "ends in 20 times 'ab'"),
    "another case": ({"runs": {"a": {}, "A": {}}}, "which some file systems treat as equal"),
    "overlong": ({"sweep": {"clip.model": ["x" * 300]}}, "has at most 200 bytes"),
    "too many": ({"sweep": {"seed": list(range(50)), "cams.stride": [1] * 50}}, "over 1000"),
    "itself": ({"runs": {}}, "more than 40 deep"),
}
RUNS["itself"][0]["runs"]["again"] = RUNS["itself"][0]["runs"]


@pytest.mark.parametrize("name", RUNS)
def test_runs_stay_in_their_folders(name: str) -> None:
    mapping, message = RUNS[name]
    with pytest.raises(ConfigError, match=message):
        Runs(mapping)


def test_names_of_runs_become_harmless() -> None:
    runs = Runs({"runs": {"a/b": {}, "c d;e": {}, "f$(g)": {}, "caf\N{SNOWMAN}": {}}})
    labels = [name.removeprefix("demo/") for name in runs if name != "demo"]
    assert labels == ["a-b", "c-d-e", "f--g-", "caf-"]


def test_configurations_parsed_by_the_engine_are_checked_too(tmp_path: Path) -> None:
    """Snakemake reads the file too, so a mapping can contain what our reader refuses."""
    laughs: list[Any] = ["lol"]
    for _ in range(20):
        laughs = [laughs] * 10
    with pytest.raises(ConfigError, match="stands for more than 100000 values"):
        from_mapping({"runs": {"a": {"b": laughs}}})
    with pytest.raises(ConfigError, match="is inf"):
        from_mapping(json.loads('{"retrain": {"lr": Infinity}}'))
