"""The embedded demo: a drawn data set in VOC's layout, and a small CLIP that understands it."""
