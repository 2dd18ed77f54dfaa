"""The command line: thin commands that parse, call and show."""

from .app import app

__all__ = ["app"]
