"""Look into a zip archive of torch before torch does, and say why torch refused one.

What breaks: `torch.load` takes archives whose members are compressed, which `torch.save` never
writes, so that a file of kilobytes can fill the memory (seen with torch 2.13).

Remedy: refuse what `torch.save` would not have written. Delete this when torch refuses it.

What else breaks: where `torch.load(weights_only=True)` refuses a file, it tells the user how to run
the code of that file. `refusal` gives the reason without that advice.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

_ZIP = b"PK\x03\x04"


def packed(path: Path) -> str:
    """Why an archive is none of torch's; empty if it is one, or no archive at all.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        if stream.read(len(_ZIP)) != _ZIP:
            return ""  # torch's older format, which torch reads, or no checkpoint
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        return f"a damaged archive: {error}"
    if packed := next((m for m in members if m.compress_type != zipfile.ZIP_STORED), None):
        return f"its member {packed.filename[:60]!r} is compressed, which torch.save never does"
    if sum(member.file_size for member in members) > path.stat().st_size:
        return "its members are said to be larger than the file"
    return ""


def refusal(error: Exception) -> str:
    """Why `torch.load(weights_only=True)` refused a file, in our words."""
    if match := re.search(r"GLOBAL (?:getattr\()?([\w.]+)", str(error)):
        return f"it names {match[1]}, which is code and no tensor"
    return "it is no file of torch.save, or is damaged"
