"""Tags other than the given ones: those that CLIP predicts, and wrong ones on purpose."""
