"""Runs that others measured, predicted: a table with sources, calibration on named rows, and the errors of the rest."""
