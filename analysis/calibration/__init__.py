"""Calibration: from measured, published or given times to a profile that experiments name."""
