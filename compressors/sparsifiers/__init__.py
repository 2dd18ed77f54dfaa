"""Sparsifiers: schemes that send some of the entries."""
