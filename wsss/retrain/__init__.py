"""Supervised segmenters, trained on the pseudo masks through mmsegmentation."""
