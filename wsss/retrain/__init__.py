"""Supervised segmenters, trained on the pseudo masks through mmsegmentation."""

from wsss._compat.torchvision_ops import ensure_torchvision_imports

# mmsegmentation imports torchvision; every module of this room is imported after this line.
ensure_torchvision_imports()
