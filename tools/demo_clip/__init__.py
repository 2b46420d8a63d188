"""Makes the embedded demo's CLIP from scratch and measures it: `python -m tools.demo_clip`."""
