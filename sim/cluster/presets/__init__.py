"""Presets of clusters, one TOML file each."""
