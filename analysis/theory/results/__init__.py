"""Results of theory as checks, one file a paper, and what their statements share."""
