"""The share of a run that is done: weighted by what earlier runs took, never falling."""

import io
import logging
import os
import time
from pathlib import Path

import pytest

from wsss.pipeline.durations import PlannedJob, expected_seconds
from wsss.pipeline.run_progress import RunProgress, duration_text
from wsss.pipeline.screen import Screen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since the start, to be changed."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def _benchmark(path: Path, seconds: float) -> str:
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:00\t1.0\n")
    return str(path)


def test_jobs_take_as_long_as_the_last_time(tmp_path: Path) -> None:
    recorded = _benchmark(tmp_path / "cams.1.tsv", 16.0)
    expected = expected_seconds(
        [
            PlannedJob(1, "cams", recorded),
            PlannedJob(2, "cams", str(tmp_path / "cams.2.tsv")),
            PlannedJob(3, "retrain", str(tmp_path / "retrain.tsv")),
            PlannedJob(4, "all", None),
        ]
    )
    assert expected[1] == expected[2] == 16.0  # of the same rule
    # CAMs took twice as long as on the demo, so the training will, too.
    assert expected[3] == 2 * expected_seconds([PlannedJob(3, "retrain", "none.tsv")])[3]
    assert expected[4] == 0.0


@pytest.mark.parametrize("text", ["", "s\th:m:s\n", "s\nno number\n", "x\n1\n"])
def test_a_damaged_record_does_not_count(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(text)
    job = PlannedJob(1, "masks", str(path))
    assert expected_seconds([job]) == expected_seconds([job._replace(benchmark="none.tsv")])


def test_the_share_is_weighted_and_never_falls(tmp_path: Path, clock: list[float]) -> None:
    log = tmp_path / "a.log"
    run = RunProgress({1: 90.0, 2: 10.0, 3: 0.0})
    run.start(2, "Small", [])
    assert run.percent() == 0
    clock[0] = 10.0
    assert run.finish(2) == "[ 10 %] Small: done in 10 s"
    run.start(1, "Large", [str(log)])
    clock[0] = 55.0
    assert run.running_lines() == ["Large: 45 s"]
    assert run.summary() == "1 of 2 jobs"
    assert run.percent() == 32  # not half: the log says nothing, and may soon tell of hours
    log.write_text("steps: 3/12, loss 0.250, 45.0 s, 135 s left\n")
    assert run.running_lines() == ["Large: steps 3/12, loss 0.250, 2 min 15 s left"]
    assert run.percent() == 32  # it will take longer than expected
    clock[0] = 100.0
    log.write_text("steps: 6/12, loss 0.200, 90.0 s, 90 s left\n")
    run.running_lines()
    assert run.percent() == 55
    clock[0] = 190.0
    log.write_text("steps: 12/12, loss 0.125, 180.0 s, 0 s left\n")
    run.running_lines()
    assert run.percent() == 99
    assert run.summary() == "1 of 2 jobs, about 2 s left"
    assert run.finish(1) == "[100 %] Large: steps 12/12, loss 0.125, done in 3 min 0 s"
    assert run.finish(3) == ""
    assert run.summary() == "2 of 2 jobs"


def test_the_log_of_an_earlier_run_does_not_count(tmp_path: Path, clock: list[float]) -> None:
    log = tmp_path / "a.log"
    log.write_text("steps: 12/12, loss 0.125, 180.0 s, 0 s left\n")
    os.utime(log, (0, 0))
    run = RunProgress({1: 90.0})
    run.start(1, "Large", [str(log)])
    assert run.running_lines() == ["Large: 0 s"]


def test_a_failed_job_is_not_done_and_may_run_again(clock: list[float]) -> None:
    run = RunProgress({1: 50.0, 2: 50.0})
    run.start(1, "First", [])
    run.fail(1)
    assert run.running == 0
    assert run.percent() == 0
    run.start(1, "First", [])
    assert run.finish(1) == "[ 50 %] First: done in 0 s"


def test_of_many_jobs_those_with_progress_are_shown(tmp_path: Path, clock: list[float]) -> None:
    run = RunProgress(dict.fromkeys(range(20), 5.0))
    for job in range(20):
        log = tmp_path / f"{job}.log"
        if job in (4, 17):
            log.write_text("CAMs: 1/2, 3.0 s, 3 s left\n")
        run.start(job, f"Job {job}", [str(log)])
    lines = run.running_lines()
    assert lines[:3] == ["Job 4: CAMs 1/2, 3 s left", "Job 17: CAMs 1/2, 3 s left", "Job 0: 0 s"]
    assert lines[8:] == ["and 12 more"]


def test_a_narrow_screen_cuts_the_title(tmp_path: Path, clock: list[float]) -> None:
    log = tmp_path / "a.log"
    log.write_text("WeCLIP on val: 12/40, 3.0 s, 20 s left\n")
    run = RunProgress({1: 5.0})
    run.start(1, "The refiner's own prediction of val, part 1-of-2", [str(log)])
    (line,) = run.running_lines(60)
    assert len(line) == 60
    assert line.endswith("…: WeCLIP on val 12/40, 20 s left")


def test_durations_in_words() -> None:
    texts = [duration_text(seconds) for seconds in (0.4, 59.4, 60, 3599, 3600, 90000)]
    assert texts == ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "25 h 0 min"]


def test_warnings_of_a_finished_job(tmp_path: Path) -> None:
    run = RunProgress(dict.fromkeys(range(5), 1.0))
    log = tmp_path / "cams.log"
    log.write_text("warning: of an earlier run\n")
    os.utime(log, (0, 0))
    run.start(0, "CAMs", [str(log)])
    assert run.warnings(0) == []
    log.write_text("CAMs: 1/2\nwarning: 3 seeds lack a tag\n  a\n  b\nCAMs: 2/2\nwarning: full\n")
    assert run.warnings(0) == [
        f"warning: 3 seeds lack a tag\n  a\n  b\n  log: {log}",
        f"warning: full\n  log: {log}",
    ]
    for part in range(1, 5):  # the same with other numbers and other lines below
        log.write_text(f"warning: {part} seeds lack a tag\n  {part}.png\n")
        run.start(part, "CAMs", [str(log)])
        assert len(run.warnings(part)) == (part < 3)
    run.start(1, "Table", [])
    assert run.warnings(1) == run.warnings(7) == []


def test_files_between_two_jobs_are_no_news() -> None:
    handler = logging.StreamHandler(io.StringIO())
    screen = Screen(handler, dict, names_runs=False, shows_finished=True)
    for text in ("Touching output file a.planes.", "Removing temporary output a.planes.", "else"):
        handler.handle(logging.makeLogRecord({"levelno": logging.INFO, "msg": text}))
    assert handler.stream.getvalue() == "else\n"
    screen.close()
