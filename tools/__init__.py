"""Programs for the project's own use; the package does not need them."""
