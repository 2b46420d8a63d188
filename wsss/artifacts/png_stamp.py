"""Pictures that say how they were made: a text chunk with provenance and digest in each PNG."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

from wsss.artifacts.atomic import write_bytes
from wsss.artifacts.checksum import json_with_checksum, verified_json
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance

_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
_KIND, _KEYWORD = b"tEXt", b"wsss\0"
_AGAIN = "delete it and draw it again"


def write_picture(path: Path, content: bytes, provenance: Provenance) -> None:
    """Atomically write a picture; a PNG gets its provenance as its last chunk.

    Args:
        content: its bytes; other formats than PNG are written as they are.
    """
    if content.endswith(_END):
        picture = content[: -len(_END)]
        stamp = {
            "provenance": provenance.model_dump(mode="json"),
            "picture": hashlib.sha256(picture).hexdigest(),
        }
        content = picture + _end(json.dumps(json_with_checksum(stamp)).encode("ascii"))
    write_bytes(path, content)


def picture_provenance(path: Path) -> Provenance:
    """How a PNG of `write_picture` was made; every byte is checked.

    Raises:
        ArtifactError: it is missing, was edited, or carries no provenance.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such picture; draw it") from None
    start = content.rfind(_KIND + _KEYWORD)
    text = content[start + len(_KIND) + len(_KEYWORD) : -len(_END) - 4]
    try:
        if start < 0:
            raise ValueError("no chunk of this pipeline")
        stamp = verified_json(json.loads(text), path, _AGAIN)
        provenance = Provenance.model_validate(stamp["provenance"])
    except (ValueError, KeyError) as error:
        raise ArtifactError(
            f"{path}: carries no provenance ({str(error).splitlines()[0]}): it was edited, is of "
            f"an older version, or was not drawn here; {_AGAIN}"
        ) from None
    picture, end = content[: start - 4], content[start - 4 :]
    if end != _end(text) or hashlib.sha256(picture).hexdigest() != stamp["picture"]:
        raise ArtifactError(f"{path}: was edited or is damaged; {_AGAIN}")
    return provenance


def _end(text: bytes) -> bytes:
    """The last chunks of a PNG: the text, and the mark of its end."""
    chunk = _KIND + _KEYWORD + text
    length = len(chunk) - len(_KIND)
    return length.to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + _END
