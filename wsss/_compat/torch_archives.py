"""Look into a zip archive of torch before torch does.

What breaks: `torch.load` takes archives whose members are compressed, which `torch.save` never
writes, so that a file of kilobytes can fill the memory (seen with torch 2.13).

Remedy: refuse what `torch.save` would not have written. Delete this when torch refuses it.
"""

from __future__ import annotations

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
