"""The photos next to exported masks: as they are, except those that a camera stored turned.

Masks belong to the upright photo. Not every reader turns a photo by its EXIF orientation, so one
that is stored turned is written upright.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image

from wsss.data.images.read import is_turned, read_bytes, read_image
from wsss.data.manifest import Sample, item_path
from wsss.export.errors import ExportError

Photos = Literal["copy", "link", "none"]
"""What becomes of the photos: copies, symbolic links, or names alone."""
_JPEG = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_QUALITY = 95


@dataclass
class PhotoWriter:
    """Writes photos below a folder by their ids."""

    folder: Path
    kind: Photos
    turned: list[str] = field(default_factory=list)
    """Ids of the photos that were written upright."""

    def add(self, sample: Sample, name: str = "") -> PurePosixPath:
        """Write a photo; gives its name below the folder.

        Args:
            name: without an ending; empty: its id.

        Raises:
            ImageError: a photo has changed since ingest, or one that is stored turned cannot be
                read.
            ExportError: a photo is gone.
            ArtifactError: its id is no file name.
        """
        if self.kind != "none" and not sample.path.is_file():
            raise ExportError(
                f"{sample.path}: the photo is gone; put it back, or export without photos "
                "(--photos none)"
            )
        suffix = sample.path.suffix.lower()
        turned = self.kind != "none" and is_turned(sample.path)
        if turned:
            suffix = ".jpg" if suffix in _JPEG else ".png"
        target = item_path(self.folder, name or sample.id, suffix)
        if self.kind != "none":
            target.parent.mkdir(parents=True, exist_ok=True)
        if turned:
            self.turned.append(sample.id)
            photo = read_image(
                sample.path, digest=sample.digest, max_pixels=sample.width * sample.height
            )
            Image.fromarray(photo).save(target, quality=_QUALITY)
        elif self.kind != "none":
            content = read_bytes(sample.path, digest=sample.digest)
            if self.kind == "copy":
                target.write_bytes(content)
            else:
                target.symlink_to(sample.path.absolute())
        return PurePosixPath(target.relative_to(self.folder).as_posix())
