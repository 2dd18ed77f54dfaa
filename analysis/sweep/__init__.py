"""Sweeps: an experiment at many points, each trajectory trained once and timed at all of them."""
