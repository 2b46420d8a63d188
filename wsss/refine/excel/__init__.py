"""ExCEL (CVPR 2025)."""
