"""A tiny DINOv2 with random weights."""

from pathlib import Path

TINY = Path(__file__).with_name("tiny.json")
SECTION = {"model": str(TINY), "pretrained": "random"}
"""The section ``dino`` of a configuration."""
