"""WeCLIP+ (TPAMI 2025)."""
