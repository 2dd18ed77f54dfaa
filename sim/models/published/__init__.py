"""Published figures that the models are timed by."""
