"""Atomic writing: no reader ever sees half a file, and no temporary file remains."""

import os
from pathlib import Path

import pytest

from wsss.artifacts.atomic import atomic_path, write_text


def test_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("x")
        assert not target.exists()
        assert temporary.parent == target.parent  # a rename across file systems is not atomic
    assert target.read_text() == "x"
    assert os.listdir(target.parent) == ["a.txt"]


def test_error_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "png"
    for names in (["a", "b"], ["c"]):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).write_text(name)
    assert os.listdir(target) == ["c"]


def test_abandoned_temporary_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    abandoned = tmp_path / ".a.txt.tmp-999999999"
    abandoned.write_text("half")
    mine = tmp_path / f".a.txt.tmp-{os.getppid()}"  # that of a living process stays
    mine.write_text("half")
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(os.listdir(tmp_path)) == sorted([mine.name, "a.txt"])
