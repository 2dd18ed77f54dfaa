"""Shipped experiments."""
