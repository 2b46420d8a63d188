"""Counts and what is computed from them."""
