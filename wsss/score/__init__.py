"""Scores, tables and pictures; the only room that opens pixel labels (all of it through `truth`)."""
