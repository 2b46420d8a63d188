"""A run's own masks in the forms that other programs read: COCO, Label Studio, CVAT, YOLO, PNGs."""
