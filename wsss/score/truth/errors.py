"""Errors of the score room."""

from __future__ import annotations

from wsss.errors import WsssError


class TruthError(WsssError, RuntimeError):
    """Ground truth is missing or does not fit its image; the message names the files."""
