"""How anything is written, read and trusted: shards, checkpoints, atomic replace, provenance."""
