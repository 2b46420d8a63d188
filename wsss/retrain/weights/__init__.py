"""Weights to start from: by name or by path, whoever named their tensors."""
