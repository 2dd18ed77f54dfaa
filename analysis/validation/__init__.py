"""Validation: real runs are predicted from a calibration that has not seen them, and the error is shown."""
