"""CAMs and seeds that other projects wrote."""
