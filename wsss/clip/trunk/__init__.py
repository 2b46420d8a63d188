"""Families of image towers, each read into the same parts: open_clip's ViT, EVA, SigLIP."""
