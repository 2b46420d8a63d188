"""Checkpoints that the authors of a method released."""
