"""Typed configuration: one model a section, unknown keys are errors, the schema is generated."""

from wsss.config.load import ConfigError, expand_path, from_mapping, load_config
from wsss.config.model import Config

__all__ = ["Config", "ConfigError", "expand_path", "from_mapping", "load_config"]
