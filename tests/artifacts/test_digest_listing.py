"""The digest of a folder's listing, by which the workflow watches files that it does not list."""

import os
from pathlib import Path

from wsss.artifacts.watch import digest_listing


def test_listing_changes_with_names_sizes_and_times_only(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    first = digest_listing(tmp_path, ".png")
    assert first == digest_listing(tmp_path, ".png")
    (tmp_path / "notes.txt").write_text("x")
    assert first == digest_listing(tmp_path, ".png")
    stat = (tmp_path / "a.png").stat()
    os.utime(tmp_path / "a.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    touched = digest_listing(tmp_path, ".png")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "B.PNG").write_bytes(b"22")
    assert len({first, touched, digest_listing(tmp_path, ".png")}) == 3


def test_no_folder_gives_an_empty_text(tmp_path: Path) -> None:
    assert digest_listing(tmp_path / "none", ".png") == ""


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "later")
    nowhere = digest_listing(tmp_path, ".png")
    assert nowhere == digest_listing(tmp_path, ".png")
    (tmp_path / "later").write_bytes(b"1")
    assert digest_listing(tmp_path, ".png") != nowhere
