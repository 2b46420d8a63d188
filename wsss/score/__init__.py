"""Scores, tables and pictures; the only room that opens pixel labels (through `truth` alone)."""
