"""The gallery of a folder of results: one static page with all photos and their masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from wsss.photos.classes import ClassTable
from wsss.photos.drawing import PhotoFiles
from wsss.photos.record import Entry, LeftOut
from wsss.photos.review import doubt, median_unsure, photo_flags
from wsss.score.page.script import script_json

INDEX = "index.html"


def gallery_html(
    title: str,
    entries: Sequence[Entry],
    classes: ClassTable,
    folder: Path,
    left_out: Sequence[LeftOut] = (),
) -> str:
    """The page, which shows pictures in ``folder`` alone; it links to the photos.

    Args:
        classes: names and colours of labels.
        folder: of results, in which the page will lie.
        left_out: photos without a mask; the page names them and says why.
    """
    content = {
        "title": title,
        "classes": classes.names,
        "colours": classes.colours,
        "unsure": round(median_unsure(entries), 4),
        "photos": [_photo(entry, folder) for entry in entries],
        "leftOut": [
            {"name": Path(p.photo).name, "photo": _link(p.photo, folder), "reason": p.reason}
            for p in left_out
        ],
    }
    assets = files("wsss.photos") / "assets"
    page = (assets / "gallery.html").read_text("utf-8")
    for name in ("gallery.css", "gallery.js"):
        page = page.replace(f"__{name}__", (assets / name).read_text("utf-8"))
    return page.replace("__DATA__", script_json(content).encode("utf-8", "replace").decode())


def _link(photo: str, folder: Path) -> str:
    return quote(os.fsencode(os.path.relpath(Path(photo).absolute(), folder.absolute())))


def _photo(entry: Entry, folder: Path) -> dict[str, Any]:
    pictures = PhotoFiles.of(entry.id)
    return {
        "id": entry.id,
        "photo": _link(entry.photo, folder),
        "overlay": quote(pictures.overlay),
        "mask": quote(pictures.mask),
        "small": quote(pictures.thumbnail),
        "smallMask": quote(pictures.mask_thumbnail),
        "size": entry.size,
        "tags": [
            [tag.label, None if tag.probability is None else round(tag.probability, 4)]
            for tag in entry.tags
        ],
        "shares": {label: round(share, 4) for label, share in entry.shares.items()},
        "unsure": round(entry.unsure, 4),
        "doubt": round(doubt(entry), 4),
        "flags": photo_flags(entry),
        "grid": entry.grid,
        "runs": entry.runs,
    }
