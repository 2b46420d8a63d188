"""Data sets, ingest and quarantine, the manifest, class lists, image reading."""
