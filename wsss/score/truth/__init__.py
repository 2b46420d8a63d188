"""Pixel labels: the only folder of the package that opens them."""
