"""Corrected masks as other programs write them: COCO, Label Studio, CVAT, index PNGs."""
