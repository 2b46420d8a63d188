"""The sub-commands, one module per group."""
