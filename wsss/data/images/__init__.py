"""Pixels: decoding photos, label PNGs, crops."""
