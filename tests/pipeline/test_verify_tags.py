"""A manifest with other tags, compared with its configuration and the given one."""

from pathlib import Path
from typing import Any

import pytest

from wsss.artifacts.stage import STAGES
from wsss.clip.tags.stage import run as change_tags
from wsss.data.ingest.stage import ingest
from wsss.data.manifest_folder import GIVEN, MANIFEST
from wsss.demo.dataset import generate
from wsss.pipeline.runs import Runs
from wsss.pipeline.verify.chain import Chain
from wsss.pipeline.verify.expected import Expected
from wsss.pipeline.verify.findings import Findings


def _runs(**noise: Any) -> Runs:
    data = {"root": "data", "demo_images": [4, 2]}
    return Runs({"name": "a", "data": data, "tag_noise": noise})


def _findings(runs: Runs) -> dict[Path, str]:
    findings = Findings()
    Chain(runs, Expected(runs), findings, quick=False).manifest("a")
    return {finding.path: f"{finding.status}: {finding.reason}" for finding in findings}


def test_other_tags_are_held_against_configuration_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate(Path("data"), train=4, val=2)
    runs = _runs(dropped=0.5)
    config, given, noisy = (
        runs["a"].config,
        Path("results/a/manifest"),
        Path("results/a/noisy_tags"),
    )
    ingest(given, **STAGES["ingest"].arguments(config))
    assert set(_findings(runs)) == {noisy / MANIFEST}  # is not there yet
    change_tags(given, noisy, Path("cache"), **STAGES["tag_noise"].arguments(config))
    assert not _findings(runs)
    assert "0.5" in _findings(_runs(dropped=0.6))[noisy / MANIFEST]
    assert not _findings(_runs())  # uses the given tags
    (noisy / GIVEN).write_text((noisy / GIVEN).read_text().replace("train", "val", 1))
    assert "given.csv is not what tag_noise wrote" in _findings(runs)[noisy / MANIFEST]
