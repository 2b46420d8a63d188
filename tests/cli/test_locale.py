"""A shell whose locale is not UTF-8: text and names of files are UTF-8 all the same."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from wsss.config.render import default_yaml

_NAME = "en_US.ISO-8859-1"
_NOTE = f"the locale {_NAME} has the encoding iso8859-1; text and names of files are"


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a shell in a Latin-1 locale."""
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / _NAME)]
    if not shutil.which("localedef") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("localedef cannot make a Latin-1 locale here")
    names = ("LANG", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    return clean | {"LOCPATH": str(folder), "LC_ALL": _NAME}


@pytest.mark.slow
def test_output_and_photos_are_utf8(latin: dict[str, str], tmp_path: Path) -> None:
    wsss = [sys.executable, "-m", "wsss"]
    done = subprocess.run([*wsss, "config", "default"], env=latin, capture_output=True, check=True)
    assert done.stdout == default_yaml().encode()
    assert done.stderr.decode().startswith(_NOTE)

    photos = tmp_path / "fotös"
    photos.mkdir()
    Image.new("RGB", (16, 12), "red").save(photos / "für.jpg")
    (photos / "tags.csv").write_text("image,tags\nfür.jpg,猫\n", encoding="utf-8")
    config = "data: {kind: folder, root: fotös, val_list: ''}\ncams: {splits: [train]}\n"
    (tmp_path / "run.yaml").write_text(config, encoding="utf-8")
    command = [*wsss, "ingest", "--out", "m", "--config", "run.yaml", "--workers", "1"]
    subprocess.run(command, cwd=tmp_path, env=latin, capture_output=True, check=True)
    row = (tmp_path / "m/manifest.csv").read_text(encoding="utf-8").splitlines()[1].split(",")
    assert (row[0], row[2], row[-1]) == ("für", "fotös/für.jpg", "猫")


@pytest.mark.slow
def test_a_terminal_is_written_to_in_its_own_encoding(latin: dict[str, str]) -> None:
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "wsss", "config", "default"]
    with subprocess.Popen(command, env=latin, stdout=writer, stderr=writer) as process:
        os.close(writer)
        shown = b""
        while chunk := _read(reader):
            shown += chunk
    os.close(reader)
    assert process.returncode == 0
    assert rb"cuda, cuda:1 \u2026" in shown


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 2**16)
    except OSError:  # the other end is closed
        return b""
