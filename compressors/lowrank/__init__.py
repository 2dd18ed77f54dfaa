"""Low rank: schemes that send factors of a matrix."""
