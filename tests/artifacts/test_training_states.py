"""Where a training has its states, next to those of other settings."""

import logging
import os
from pathlib import Path

import pytest

from wsss.artifacts.training import state_folder

KEYS = [f"{number:064x}"[::-1] for number in range(1, 6)]


def train(work: Path, key: str, day: int) -> Path:
    folder = state_folder(work, key)
    (folder / "state").write_text(key)
    os.utime(folder, (day * 86_400, day * 86_400))
    return folder


def test_the_states_of_the_most_recent_trainings_stay(tmp_path: Path) -> None:
    (tmp_path / "20260101_120000").mkdir()  # of somebody else
    folders = [train(tmp_path, key, day) for day, key in enumerate(KEYS[:3])]
    again = train(tmp_path, KEYS[0], 3)
    assert again == folders[0]
    last = train(tmp_path, KEYS[3], 4)
    assert [folder.exists() for folder in folders] == [True, False, True]
    assert (again / "state").read_text() == KEYS[0]
    assert len({*folders, last}) == 4
    assert (tmp_path / "20260101_120000").exists()


def test_states_of_other_trainings_are_mentioned_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train(tmp_path, KEYS[0], 0)
    train(tmp_path, KEYS[0], 1)
    assert not caplog.records
    for day in (2, 3):
        train(tmp_path, KEYS[1], day)
    (record,) = caplog.records
    assert "holds states of other settings or inputs alone" in record.message
