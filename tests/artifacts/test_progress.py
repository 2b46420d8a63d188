"""Progress in a log: lines that the screen of a run can read, often enough and not too often."""

import itertools
import time
from pathlib import Path

import pytest

from wsss.artifacts.progress import logged_progress, progress_lines, track


class Clock:
    """Time that passes when somebody says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def _log_of(steps: int, seconds: float, clock: Clock, capsys: pytest.CaptureFixture[str]) -> str:
    done: list[int] = []
    for step in track(
        range(steps), total=steps, description="a: b", note=lambda: f"loss {done[-1]}"
    ):
        done.append(step)
        clock.now += seconds
    return capsys.readouterr().err


def test_what_is_written_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _log_of(8, 0.5, Clock(monkeypatch), capsys)
    assert text.splitlines()[0] == "a: b: 2/8, loss 1, 1.0 s, 3 s left"
    log = tmp_path / "a.log"
    log.write_text("earlier: 5/5, 1.0 s, 0 s left\n" + text + "a warning\n")
    line = logged_progress(log)
    assert line is not None
    assert (line.description, line.done, line.total, line.note) == ("a: b", 8, 8, "loss 7")
    assert (line.seconds, line.seconds_left) == (4.0, 0)
    assert [line.description for line in progress_lines(log.read_text())][:2] == ["earlier", "a: b"]


def test_a_long_log_has_a_line_every_15_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = progress_lines(_log_of(4000, 1.0, Clock(monkeypatch), capsys))
    times = [line.seconds for line in lines]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times[:-1])]
    assert gaps[0] == 1.0
    assert max(gaps) <= 15.0
    assert all(gap >= min(15, time / 50) for gap, time in zip(gaps, times, strict=False))
    assert len(lines) < 400


def test_a_log_without_progress(tmp_path: Path) -> None:
    assert logged_progress(tmp_path / "none.log") is None
    log = tmp_path / "a.log"
    log.write_bytes(b"\xff 14 images: 13 reused, 1 computed\n" * 1000)
    assert logged_progress(log) is None
