"""Presets of devices and of compression costs, with their sources."""
