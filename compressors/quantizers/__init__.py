"""Quantizers: schemes that send every entry in fewer bits."""
