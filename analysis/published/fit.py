"""Calibration: the terms of a set's network, by least squares of the relative error on its calibration rows."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from .predict import Predictor
from .sets import RunSet, Terms
from .table import Run

_STEP = 1e-3
"""Of the logarithm of a term, for differences."""
_ENOUGH = 1e-5
"""Relative change at which the search ends."""
_INFLUENCE = 1e-4
"""The least change of a calibration row, relative to that of a term, which determines the term."""


def fitted(of: RunSet, start: Terms, calibration: list[Run], predictor: Predictor) -> Terms:
    """Return terms of which those that a set fits suit its calibration rows best.

    Terms are above 0, so their logarithms are searched.

    Parameters
    ----------
    of : RunSet
    start : Terms
        The other terms, and where the search starts.
    calibration : list of Run
    predictor : Predictor

    Raises
    ------
    ValueError
        If a term starts at 0, or has no influence on the calibration rows.
    """
    if not of.fit:
        return start

    def terms(logarithms: NDArray[np.float64]) -> Terms:
        return start.model_copy(update=dict(zip(of.fit, np.exp(logarithms).tolist(), strict=True)))

    def errors(logarithms: NDArray[np.float64]) -> list[float]:
        now = terms(logarithms)
        return [predictor.step_s(run, of, now) / run.step_s(of.steps_per_epoch) - 1 for run in calibration]

    first = [getattr(start, name) for name in of.fit]
    if not all(first):
        raise ValueError(f"{of.title}: the search for {', '.join(of.fit)} needs a start above 0 for each")
    found = least_squares(
        errors, np.log(first), diff_step=[_STEP] * len(first), xtol=_ENOUGH, ftol=_ENOUGH, gtol=_ENOUGH
    )
    if np.linalg.matrix_rank(np.asarray(found.jac), tol=_INFLUENCE) < len(of.fit):
        raise ValueError(f"{of.title}: its calibration rows do not determine {', '.join(of.fit)}")
    return terms(found.x)
