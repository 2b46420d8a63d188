"""Trained refiners of CAMs: the class, the methods, and the stage that runs them."""
