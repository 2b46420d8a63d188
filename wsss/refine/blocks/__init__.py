"""Parts that refiners share."""
