"""The errors that readers and writers of artifacts raise."""

from __future__ import annotations

from wsss.errors import WsssError


class ArtifactError(WsssError, RuntimeError):
    """An artifact is missing, unfinished, damaged or of another kind; the message names it."""


class WriteError(ArtifactError):
    """An artifact cannot be written (disk full, folder read-only …); the message names it.

    What was there before is unchanged.
    """
