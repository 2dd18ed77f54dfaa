"""The shipped sweeps."""
