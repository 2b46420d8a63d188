"""The error of a DINOv2 that cannot be had; a value error, since the configuration names it."""

from __future__ import annotations

from wsss.errors import WsssError


class DinoLoadError(WsssError, ValueError):
    """A model cannot be built or its weights cannot be read; the message says what to change."""
