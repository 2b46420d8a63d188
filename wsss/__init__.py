"""Weakly supervised semantic segmentation: from image-level tags to masks and a segmenter."""

__version__ = "0.2.0"
