"""Checks the prose that a person reads: short, plain sentences."""
