"""The error that every reader of an artefact raises."""

from __future__ import annotations

from wsss.errors import WsssError


class ArtifactError(WsssError, RuntimeError):
    """An artefact is missing, unfinished, damaged or of another kind; the message names it."""
