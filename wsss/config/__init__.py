"""Typed configuration: one model per section, unknown keys are errors, the schema is generated."""
