"""Errors of the configuration."""

from __future__ import annotations

from wsss.errors import WsssError


class ConfigError(WsssError, ValueError):
    """The configuration is wrong; the message names each key, its value and what to do."""
