"""The stage `ingest`: which images can be used."""
