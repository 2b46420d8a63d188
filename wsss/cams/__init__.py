"""CAM sources (softmax Grad-CAM, external seeds) and the attention affinity that spreads them."""
