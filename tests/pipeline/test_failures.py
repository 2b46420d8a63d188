"""The last lines of a failed run."""

import logging
import os
import time
from pathlib import Path

import pytest

from wsss.pipeline.failures import Refusals, explain_failure, explain_refusal
from wsss.pipeline.stage_log import failure_message

_TORCHRUN = """\
error: nodir/classes.json: no class list; run ingest first
error: nodir/classes.json: no class list; run ingest first
W1128 18:45:38.161000 27700 torch/distributed/elastic/api.py:1028] closing signal SIGTERM
Traceback (most recent call last):
  File "run.py", line 1, in <module>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decoding: 3/3\n\x1b[1;31merror:\x1b[0m a\n  b\n  c\n", "error: a\n  b\n  c"),
        ("error: the first try\nerror: the second\n", "error: the second"),
        (_TORCHRUN, "error: nodir/classes.json: no class list; run ingest first"),
        ("error: a\n/x/resource_tracker.py:254: UserWarning: leaked\n  warn()\n", "error: a"),
        (
            'Traceback (most recent call last):\n  File "x"\nKeyError: 3\n',
            "error: unexpected: KeyError: 3 (its log has the traceback)",
        ),
        ("CAMs of train: 3/9\nKilled\n", ""),
    ],
)
def test_the_message_of_a_stage(tmp_path: Path, text: str, message: str) -> None:
    log = _log(tmp_path / "a.log", text)
    assert failure_message(text.replace("\x1b[1;31m", "").replace("\x1b[0m", "")) == message
    if message:
        assert explain_failure([("cams", log)], [], 0.0).endswith(f"{log}\n{message}")


def test_parts_that_fail_for_the_same_reason_count_once(tmp_path: Path) -> None:
    failed = [
        ("cams", _log(tmp_path / f"{part}.log", "error: no weights\n", seconds_ago=10 - part))
        for part in range(4)
    ]
    failed.append(("ingest", _log(tmp_path / "i.log", "error: no photos\n", seconds_ago=2)))
    shown = explain_failure(failed, [], 0.0)
    assert shown == (
        f"cams failed 4 times; last log: {failed[3][1]}\nerror: no weights\n\n"
        f"ingest failed; log: {failed[4][1]}\nerror: no photos"
    )


_NO_RULE = (
    "MissingRuleException:\nNo rule to produce results/a/masks/trian (if you use input functions "
    "make sure that they don't raise unexpected exceptions)."
)
_NO_FILES = """\
MissingInputException in rule test_images in file "submission.smk", line 5:
Missing input files for rule test_images:
    output: results/v/test/manifest.csv
    affected files:
        voc/test.txt
        voc/more.txt
"""


def test_what_the_engine_cannot_make_is_explained() -> None:
    targets = ["all", "results/a/masks/train/1-of-2.h5"]
    shown: list[str] = []
    handler = Refusals(shown, lambda: targets)
    for kind, text in (
        ("MissingRuleException", _NO_RULE),
        ("MissingInputException", _NO_FILES),
        ("WorkflowError", _NO_RULE),
        ("MissingInputException", "other words"),
    ):
        record = logging.LogRecord("x", logging.ERROR, "", 0, text, None, None)
        record.exception = kind
        handler.handle(record)
    assert len(shown) == 2
    assert "trian: no rule has this name" in shown[0]
    assert "; did you mean results/a/masks/train/1-of-2.h5? snakemake" in shown[0]
    assert shown[1].startswith(
        "error: voc/test.txt: no such file (and 1 more); the rule test_images reads it"
    )
    assert "configuration. snakemake" in explain_refusal("MissingRuleException", _NO_RULE, list)


def test_a_log_of_an_earlier_run_is_not_shown(tmp_path: Path) -> None:
    log = _log(tmp_path / "a.log", "error: of yesterday\n", seconds_ago=86_400)
    shown = explain_failure([("cams", log)], [], time.time() - 60)
    assert shown.endswith("error: it did not start; the messages above say why")


def test_a_job_of_a_cluster_that_ends_before_its_stage_starts(tmp_path: Path) -> None:
    stage_log = str(tmp_path / "cams.log")
    cluster_log = _log(tmp_path / "7.log", "Building DAG of jobs...\nerror: other code\n")
    text = (
        f"Error in rule cams:\n    jobid: 1\n    log: {stage_log}, {cluster_log} (check log file(s)"
    )
    engine = _log(tmp_path / "engine.log", text)
    shown = explain_failure([("cams", stage_log)], [engine], 0.0)
    assert shown == f"cams failed; log: {cluster_log}\nerror: other code"


def test_a_killed_stage(tmp_path: Path) -> None:
    log = _log(tmp_path / "a.log", "CAMs of train: 3/9\n")
    assert "it ended without a message; it may have been killed" in explain_failure(
        [("cams", log)], [], 0.0
    )


def test_a_remedy_replaces_the_missing_message(tmp_path: Path) -> None:
    """Only of jobs that failed for good: a cancelled one that a retry made good has none."""
    status = "    message: SLURM-job '1' failed, SLURM status is: 'CANCELLED'.\n"
    engine = _log(
        tmp_path / "engine.log",
        f"Error in rule cams:\n{status}Error in rule retrain:\n{status}",
    )
    shown = explain_failure([("cams", str(tmp_path / "none.log"))], [engine], 0.0)
    assert shown.startswith("cams: a job (CANCELLED) - was cancelled")
    assert len(shown.splitlines()) == 1


def test_without_failed_jobs_the_places_of_the_logs_are_named() -> None:
    shown = explain_failure([], ["a.log"], 0.0)
    assert "a.log" in shown
    assert "results/<run>/logs" in shown


def _log(path: Path, text: str, seconds_ago: float = 0) -> str:
    path.write_text(text)
    changed = time.time() - seconds_ago
    os.utime(path, (changed, changed))
    return str(path)
