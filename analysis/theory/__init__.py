"""Convergence theory: which results apply to a scheme or a run, whether their assumptions held, and their bounds."""
