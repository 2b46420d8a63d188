"""Errors of the score room."""

from __future__ import annotations


class TruthError(RuntimeError):
    """Ground truth is missing or does not fit its image; the message names the files."""
