"""The settings of a run: described, checked, read from TOML."""
