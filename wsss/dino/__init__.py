"""DINOv2, a frozen image encoder that was trained without texts."""
