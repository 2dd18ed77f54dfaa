"""What the numbers mean: comparisons, plots, reports."""
