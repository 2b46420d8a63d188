"""Readers of data sets: which images there are and what is on them."""
