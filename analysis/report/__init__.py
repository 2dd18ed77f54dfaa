"""The report: one self-contained HTML page about a run."""

from .page import report_html

__all__ = ["report_html"]
