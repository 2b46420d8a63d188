"""Whether what lies in the folder of a run is what its configuration would give now."""
