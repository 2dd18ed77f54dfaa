"""Measurement of real training between processes: what is measured, by whom, and what is kept of it."""
