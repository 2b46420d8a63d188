"""Trained refiners of CAMs: the interface, the identity refiner, and the stage that runs them."""
