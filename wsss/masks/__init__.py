"""Pseudo masks, the product of a chain: HDF5 and palette PNG."""
