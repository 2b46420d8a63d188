"""Contact sheets and curves."""
