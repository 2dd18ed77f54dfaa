"""Where the statements of Wangni et al. 2018 are sharp, and what breaks them."""

import numpy as np

from gradwire.analysis.theory.check import Floats
from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import wangni2018
from gradwire.compressors.sparsifiers.wangni import Wangni

from .faultyschemes import clipped_and_filled

PROBE = Probe(Wangni(0.3), {name: standard_vectors(30)[name] for name in ("normal", "unbalanced", "geometric")})
NEARLY_SPARSE = Probe(Wangni(0.3), {"three and many": np.concatenate([np.ones(3), np.full(3000, 1e-4)])})


def unclipped(magnitudes: Floats, eps: float) -> Floats:
    """Return the probabilities that would do if none of them had to be cut at 1."""
    norm2 = np.square(magnitudes).sum()
    level = magnitudes.sum() / ((1 + eps) * norm2)
    return np.where(magnitudes > 0, np.minimum(1.0, level * magnitudes), 0.0)


def of_half_the_variance(magnitudes: Floats, eps: float) -> Floats:
    return wangni2018.closed_form(magnitudes, eps / 2)


SHARP = {
    "wangni.constraint": lambda: wangni2018.constraint(PROBE),
    "wangni.closed_form": lambda: wangni2018.closed_form_count(PROBE),
    "wangni.greedy": lambda: wangni2018.greedy_variance(PROBE),
    "wangni.optimal": lambda: wangni2018.optimal(PROBE),
    "wangni.sparsity": lambda: wangni2018.sparsity(NEARLY_SPARSE),
}
BROKEN = {
    "wangni.constraint": lambda: wangni2018.constraint(PROBE, unclipped),
    "wangni.closed_form": lambda: wangni2018.closed_form_count(PROBE, unclipped),
    "wangni.greedy": lambda: wangni2018.greedy_variance(PROBE, clipped_and_filled),
    "wangni.optimal": lambda: wangni2018.optimal(PROBE, clipped_and_filled),
    "wangni.sparsity": lambda: wangni2018.sparsity(NEARLY_SPARSE, of_half_the_variance),
}
