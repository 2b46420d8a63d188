"""Errors of the encoder room; both are value errors: what was asked for cannot be had."""

from __future__ import annotations

from wsss.errors import WsssError


class ClipLoadError(WsssError, ValueError):
    """A model cannot be built or its weights cannot be read; the message says what to change."""


class UnsupportedEncoderError(WsssError, ValueError):
    """The image tower is no plain ViT CLIP; the message says what was found and what would do."""
