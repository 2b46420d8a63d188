"""WeCLIP (CVPR 2024)."""
