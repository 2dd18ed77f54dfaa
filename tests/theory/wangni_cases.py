"""Where the statements of Wangni et al. 2018 are sharp, and what breaks them."""

from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import wangni2018
from gradwire.compressors.sparsifiers.wangni import Wangni

from .faultyschemes import clipped_and_filled

PROBE = Probe(Wangni(0.3), {name: standard_vectors(30)[name] for name in ("normal", "unbalanced", "geometric")})

SHARP = {
    "wangni.closed_form": lambda: wangni2018.closed_form_count(PROBE),
    "wangni.greedy": lambda: wangni2018.greedy_variance(PROBE),
    "wangni.optimal": lambda: wangni2018.optimal(PROBE),
}
BROKEN = {
    "wangni.closed_form": lambda: wangni2018.closed_form_count(PROBE, clipped_and_filled),
    "wangni.greedy": lambda: wangni2018.greedy_variance(PROBE, clipped_and_filled),
    "wangni.optimal": lambda: wangni2018.optimal(PROBE, clipped_and_filled),
}
