"""Assumptions: what proofs take for bounded, as it was met along runs."""

from typing import NamedTuple

import numpy as np

from .check import Floats
from .evidence import Evidence
from .results.alistarh2018 import discrepancies

LEVELS = (0.5, 0.9, 0.99, 1.0)


class Assumption(NamedTuple):
    """A quantity that some result takes for bounded.

    Attributes
    ----------
    subject : str
    symbol, meaning : str
    median, percentile_90, percentile_99, largest : float
        Over all runs and steps.
    allowed : float
        What the scheme states; NaN where the results ask for some bound and not for a certain one.
    """

    subject: str
    symbol: str
    meaning: str
    median: float
    percentile_90: float
    percentile_99: float
    largest: float
    allowed: float = float("nan")


def assumptions(evidence: Evidence) -> list[Assumption]:
    """Return what was met of each quantity that is defined for the scheme."""
    lost, given = evidence.stack("lost2"), evidence.stack("input2")
    share = np.divide(lost, given, out=np.zeros_like(lost), where=given > 0)
    found = (
        _row(evidence, "E||g||^2", "second moment of workers' gradients: G^2, sigma^2, M^2", evidence.stack("own2")),
        _row(
            evidence,
            "1 - delta" if evidence.error < 1 else "omega",
            "k-contraction, variance: ||C(p) - p||^2 / ||p||^2",
            np.where(np.isnan(given), np.nan, share),
            evidence.error,
        ),
        _row(evidence, "xi", "Alistarh's Assumption 1", discrepancies(evidence)),
    )
    return [row for row in found if row is not None]


def _row(
    evidence: Evidence, symbol: str, meaning: str, values: Floats, allowed: float = float("nan")
) -> Assumption | None:
    """Return quantiles of values [R, S], upper order statistics as some may be infinite; None if none is defined."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    median, most, nearly_all, largest = (float(np.quantile(known, level, method="higher")) for level in LEVELS)
    return Assumption(evidence.subject, symbol, meaning, median, most, nearly_all, largest, allowed)
