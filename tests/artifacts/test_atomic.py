"""Atomic writing: no reader ever sees half a file, and no temporary file remains."""

import os
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.builders import provenance
from tests.machines import name_space
from wsss.artifacts.atomic import atomic_path, write_one_of_many, write_text
from wsss.artifacts.checkpoint import save_checkpoint


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


def test_a_folder_of_many_files_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And cleared of what dead writers left by then, of whichever file."""
    listed, scandir = [], os.scandir

    def counted(folder: Path) -> object:
        listed.append(Path(folder))
        return scandir(folder)

    folder = tmp_path / "many"
    folder.mkdir()
    (folder / ".7.png.tmp-999999999").write_text("half")
    mine = folder / f".8.png.tmp-{os.getppid()}"  # that of a living process stays
    mine.write_text("half")
    monkeypatch.setattr(os, "scandir", counted)
    for index in range(5):
        write_one_of_many(folder / f"{index}.png", b"%d" % index)
        write_one_of_many(folder / "deep/a.png", b"%d" % index)
    assert listed == [folder, folder / "deep"]
    assert sorted(os.listdir(folder)) == [mine.name, *(f"{i}.png" for i in range(5)), "deep"]
    assert [(folder / f"{i}.png").read_text() for i in range(5)] == list("01234")
    assert (folder / "deep/a.png").read_text() == "4"


def test_one_of_many_files_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that fails half-way leaves the old file and nothing else."""
    target = tmp_path / "a.png"
    write_one_of_many(target, b"old")

    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as stream:
            stream.write(content[:2])
        raise RuntimeError("killed")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(RuntimeError, match="killed"):
        write_one_of_many(target, b"new content")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_container_leaves_the_files_of_others_alone(tmp_path: Path) -> None:
    """It has this host's name, and none of its processes has the writer's number."""
    target = tmp_path / "a.txt"
    program = (
        "import sys; from pathlib import Path; from wsss.artifacts.atomic import write_text; "
        "write_text(Path(sys.argv[1]), 'theirs')"
    )
    with atomic_path(target) as temporary:
        temporary.write_text("mine")
        container = name_space("-U", "-r", "-p", "-f", "--mount-proc")
        command = [*container, sys.executable, "-c", program, str(target)]
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
        assert target.read_text() == "theirs"
        assert temporary.read_text() == "mine"
    assert target.read_text() == "mine"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_files_have_the_modes_that_others_have(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    expected = (tmp_path / "plain").stat().st_mode
    save_checkpoint(tmp_path / "a.safetensors", {"x": torch.ones(2)}, provenance())
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        number, _ = tempfile.mkstemp(dir=temporary)
        os.close(number)
    (inside,) = (tmp_path / "folder").iterdir()
    assert stat.S_IMODE(expected) & 0o077, "an umask that hides everything shows nothing here"
    for path in (tmp_path / "a.safetensors", inside):
        assert path.stat().st_mode == expected


def test_threads_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    texts = [str(thread) * 10_000 for thread in range(4)]

    def write_often(text: str) -> None:
        for _ in range(50):
            write_text(target, text)
            assert target.read_text() in texts

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write_often, texts))
    assert os.listdir(tmp_path) == ["a.txt"]
