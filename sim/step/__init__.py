"""One training step: what is computed, what compression costs, and when everything happens."""
