"""Training of a refiner, whichever the method."""
