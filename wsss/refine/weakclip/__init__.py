"""WeakCLIP (IJCV 2024)."""
