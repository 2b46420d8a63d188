"""Errors of the export room."""

from __future__ import annotations

from wsss.errors import WsssError


class ExportError(WsssError, RuntimeError):
    """There is nothing to export, or no place for it; the message names the folder."""
