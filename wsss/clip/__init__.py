"""The frozen CLIP over open_clip: tokens, attention, the last block re-run, the text bank."""
