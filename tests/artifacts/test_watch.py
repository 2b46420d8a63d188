"""The state of files that a stage read: it stays while they have the content that was recorded."""

import os
import shutil
from pathlib import Path

import pytest

from wsss.artifacts.digest import digest_file
from wsss.artifacts.watch import (
    Stamp,
    files_below,
    is_listed,
    listing_path,
    stamps_of,
    state,
    write_listing,
    write_record,
)

LONG_AGO = (10**18, 10**18)
LATER = 2 * 10**18


class Folder:
    """A folder whose files were read, and the record of that."""

    def __init__(self, root: Path, record: Path) -> None:
        self.root, self.record = root, record
        root.mkdir()
        for name in ("a.jpg", "b.jpg"):
            self.write(name, name[0] * 10)

    def write(self, name: str, text: str) -> None:
        """A file that is older than all others."""
        (self.root / name).unlink(missing_ok=True)
        (self.root / name).write_text(text)
        os.utime(self.root / name, ns=LONG_AGO)

    def stamps(self) -> dict[str, Stamp]:
        return stamps_of(files_below(self.root))

    def state(self) -> str:
        return state(self.stamps(), self.record)

    def read(self, *, started: int = LATER) -> str:
        """What the stage does."""
        text, stamps = self.state(), self.stamps()
        digests = {path: digest_file(Path(path)) for path in stamps}
        write_record(self.record, text, stamps, digests, started)
        return text


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "photos", tmp_path / "record.json")


def test_the_same_content_is_the_same_state(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder.read()
    assert folder.state() == first
    os.utime(folder.root / "a.jpg")
    shutil.copytree(folder.root, aside := folder.root.with_name("copy"))
    shutil.rmtree(folder.root)
    folder.root.symlink_to(aside)
    assert folder.state() == first
    for path in aside.iterdir():
        os.utime(path, ns=LONG_AGO)
    assert folder.state() == first
    monkeypatch.setattr("wsss.artifacts.watch.digest_file", None)
    assert folder.state() == first, "compared once"


@pytest.mark.parametrize("edit", ["replace", "remove", "add", "exchange", "move"])
def test_another_content_is_another_state(
    folder: Folder, edit: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = folder.read()
    if edit == "replace":  # as long, and older
        folder.write("a.jpg", "c" * 10)
    elif edit == "remove":
        (folder.root / "a.jpg").unlink()
    elif edit == "add":
        folder.write("c.jpg", "c")
    elif edit == "exchange":  # each has size and time of the other
        folder.write("a.jpg", "b" * 10)
        folder.write("b.jpg", "a" * 10)
    else:
        folder.root.rename(tmp_path / "elsewhere")
        folder.root = tmp_path / "elsewhere"
    second = folder.state()
    assert second != first
    assert "since the last run" in caplog.text
    assert folder.read() == second, "the text that the workflow gives is recorded"
    assert folder.state() == second


def test_a_state_that_is_restored_is_the_recorded_one(folder: Folder) -> None:
    first = folder.read()
    folder.write("a.jpg", "c" * 10)
    assert folder.state() != first
    folder.write("a.jpg", "a" * 10)
    assert folder.state() == first


def test_a_file_that_was_just_written_is_compared_by_content(folder: Folder) -> None:
    first = folder.read(started=LONG_AGO[0])
    assert f'[[10], "{digest_file(folder.root / "a.jpg")}"]' in folder.record.read_text()
    assert folder.state() == first


def test_a_record_that_is_damaged_or_lost_hides_no_change(folder: Folder) -> None:
    first = folder.read()
    folder.write("a.jpg", "c" * 10)
    folder.record.write_text(folder.record.read_text().replace("a.jpg", "A.jpg"))
    second = folder.state()
    folder.record.unlink()
    assert first != second == folder.state()


def test_hidden_files_broken_links_and_pipes_do_not_count(folder: Folder) -> None:
    before = folder.stamps()
    (folder.root / ".c.jpg").touch()
    (folder.root / "d.jpg").symlink_to("nowhere")
    os.mkfifo(folder.root / "e.jpg")
    (folder.root / "again").symlink_to(folder.root)
    (folder.root / "aside").mkdir()
    (folder.root / "aside/f.jpg").touch()
    (folder.root / "table.csv").touch()
    exclude = [folder.root / "aside", folder.root / "table.csv"]
    assert stamps_of(files_below(folder.root, exclude=exclude)) == before


@pytest.mark.parametrize("here", [".", ".."])
def test_results_among_the_files_do_not_count(
    folder: Folder, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder.stamps()
    results = folder.root / here / "results"
    results.mkdir()
    (results / "mask.png").touch()
    (folder.root / "linked").symlink_to(results)
    with monkeypatch.context() as inside:
        inside.chdir(results.parent)
        assert folder.stamps() != before, "photos in a folder of that name"
        (results / "run/manifest").mkdir(parents=True)
        assert folder.stamps() == before
    (folder.root / ".snakemake").mkdir()
    assert (folder.stamps() == before) == (here == ".")
    assert stamps_of(files_below(results)), "a folder that is named itself"


def test_a_listing_tells_a_missing_or_exchanged_file(folder: Folder) -> None:
    assert not is_listed(folder.root)
    write_listing(folder.root)
    os.utime(folder.root / "a.jpg")
    assert is_listed(folder.root)
    folder.write("a.jpg", "longer than it was")
    assert not is_listed(folder.root)
    write_listing(folder.root)
    (folder.root / "a.jpg").unlink()
    assert not is_listed(folder.root)
    listing_path(folder.root).write_text("[")
    assert not is_listed(folder.root)
