"""The profiles name every submitted rule, and query Slurm for the settings of its cluster."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROFILES = ("slurm", "slurm-gpu")
ON_GPUS = {
    "cams",
    "refine_train",
    "refine_apply",
    "refine_predict",
    "retrain",
    "predict",
    "tag_noise",
    "refine_labels",
}


def _read(name: str) -> dict[str, Any]:
    from snakemake.profiles import ProfileConfigFileParser  # a second, which other processes save

    with (ROOT / f"workflow/profiles/{name}/config.yaml").open() as stream:
        return dict(ProfileConfigFileParser().parse(stream))


def _rules(*, gpus: bool) -> tuple[set[str], set[str]]:
    """Names of the rules that are submitted, and of those that run locally.

    Args:
        gpus: whether the engine plans for GPUs, so that predictions are two jobs.
    """
    submitted, local = set(), set()
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        text = path.read_text()
        for rule in re.split(r"\n(?= *rule ?\w*:)", text)[1:]:
            named = re.match(r"\s*rule (\w+):", rule) or re.search(r'name:\s+f"(\w+?)_\{', rule)
            by_plan = re.search(r'name:\s+"(\w+)" if APART else "(\w+)"', rule)
            if by_plan:
                submitted.add(by_plan[1 if gpus else 2])
            else:
                assert named, rule[:200]
                (local if "localrule: True" in rule else submitted).add(named[1])
    nothing = {name for name in submitted if name.endswith("_nothing")}
    return submitted - local - nothing, local | nothing


@pytest.mark.parametrize("name", PROFILES)
def test_a_run_does_not_wait_long_after_its_last_job(name: str) -> None:
    """With a limit of jobs per timespan the engine ends up to one timespan after its last job."""
    from snakemake.settings.types import MaxJobsPerTimespan

    limit = MaxJobsPerTimespan.parse_choice(_read(name)["max-jobs-per-timespan"])
    assert 0 < limit.timespan <= 10
    assert limit.max_jobs == limit.timespan  # one a second


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the output of `scontrol show config`."""

    def say(text: str) -> None:
        program = tmp_path / "scontrol"
        program.write_text(f"#!/bin/sh\necho '{text}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return say


@pytest.mark.parametrize("name", PROFILES)
def test_every_submitted_rule_has_threads_memory_and_time(name: str) -> None:
    submitted, local = _rules(gpus=name == "slurm-gpu")
    profile = _read(name)
    resources: dict[str, dict[str, str]] = {}
    for entry in profile["set-resources"]:
        rule, _, assignment = entry.partition(":")
        key, _, value = assignment.partition("=")
        resources.setdefault(rule, {})[key] = value
    threads = dict(entry.split("=") for entry in profile["set-threads"])
    assert set(resources) == submitted
    assert submitted - set(threads) == {"refine_import"}  # one thread
    assert not local & set(threads)
    for rule, request in resources.items():
        assert "attempt" in request["mem_mb"], f"{rule}: no more memory at a retry"
        assert request["runtime"], rule
    on_gpus = {rule for rule, request in resources.items() if "gpu" in request}
    assert on_gpus == (ON_GPUS if name == "slurm-gpu" else set())
    assert {entry.split("=")[0] for entry in profile.get("groups", [])} <= submitted


def test_threads_and_memory_of_a_training_grow_with_its_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WSSS_TRAINING_GPUS", raising=False)
    for gpus, threads, memory in ((1, 8, 16000), (4, 32, 40000)):
        profile = _read("slurm-gpu")
        for rule in ("refine_train", "retrain"):
            assert f"{rule}={threads}" in profile["set-threads"]
            requests = {f"{rule}:gpu={gpus}", f"{rule}:mem_mb={memory} * attempt"}
            assert requests <= set(profile["set-resources"])
        monkeypatch.setenv("WSSS_TRAINING_GPUS", "4")
    monkeypatch.setenv("WSSS_TRAINING_GPUS", "all")
    with pytest.raises(SystemExit, match="WSSS_TRAINING_GPUS: found 'all', expected a number"):
        _read("slurm-gpu")


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(
    ("accounts", "command"), [("accounting_storage/none", "squeue"), ("slurmdbd", "sacct")]
)
def test_jobs_are_asked_for_where_their_end_is_seen(
    name: str, accounts: str, command: str, scontrol: Callable[[str], None]
) -> None:
    scontrol(
        f"AccountingStorageHost = x\nAccountingStorageType   = {accounts}\nMinJobAge = 300 sec"
    )
    assert _read(name)["slurm-status-command"] == command


@pytest.mark.parametrize("name", PROFILES)
def test_account_and_partition_of_sbatch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SBATCH_ACCOUNT", "SBATCH_PARTITION"):
        monkeypatch.delenv(variable, raising=False)
    assert not [entry for entry in _read(name)["default-resources"] if "slurm_" in entry]
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    monkeypatch.setenv("SBATCH_PARTITION", "night")
    defaults = _read(name)["default-resources"]
    assert {"slurm_account=lab", "slurm_partition=night"} <= set(defaults)


def test_the_common_profile_names_no_machine() -> None:
    assert set(_read("default")) == {
        "printshellcmds", "show-failed-logs", "rerun-incomplete", "keep-going"
    }  # fmt: skip


@pytest.mark.parametrize("name", [None, *PROFILES])
def test_the_common_profile_is_in_force(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from snakemake.cli import parse_args

    monkeypatch.chdir(ROOT)
    chosen = [] if name is None else ["--profile", f"workflow/profiles/{name}"]
    _, options = parse_args(["--cores", "1", *chosen, "--", "all"])
    assert options.keep_going
    assert options.rerun_incomplete
    assert options.show_failed_logs
    assert options.executor == ("slurm" if name else None)
