"""Settings that the speed benchmarks start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsss.config.base import overlay
from wsss.config.load import from_mapping
from wsss.config.model import Config


def for_photographs(mapping: Mapping[str, Any]) -> Config:
    """A configuration of VOC with some values replaced.

    Without a kind of data a configuration is that of the embedded demo, which leaves out the
    affinity and has small networks. What a user of photographs waits for would not be measured.

    Args:
        mapping: sections and keys that differ from the defaults.
    """
    return from_mapping(overlay({"data": {"kind": "voc"}}, mapping))
