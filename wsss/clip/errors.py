"""Errors of the encoder; both are value errors, since the configuration names what cannot work."""

from __future__ import annotations

from wsss.errors import WsssError


class ClipLoadError(WsssError, ValueError):
    """A model cannot be built or its weights cannot be read; the message says what to change."""


class UnsupportedEncoderError(WsssError, ValueError):
    """An encoder of this family cannot do it; the message says what it is and what would work."""
