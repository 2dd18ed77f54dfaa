"""Where the statements of Alistarh et al. 2018 are sharp, and what breaks them."""

from functools import cache

from gradwire.analysis.theory.evidence import Evidence
from gradwire.analysis.theory.results import alistarh2018 as theory
from gradwire.compressors.feedback import ErrorFeedback

from .feedback_instances import Forgetful, Twofold, constant_gradient, on_a_slope, run, shrinking


@cache
def _constant(memory: ErrorFeedback) -> Evidence:
    return run(constant_gradient(), shrinking(0.3, memory), (0.1,) * 100)


def _growing(memory: ErrorFeedback) -> Evidence:
    """Learning rates that keep up with the memory: alpha_t ||G|| = ||v_t - x_t||."""
    g = 0.6
    rates = (0.1, *(0.1 * g * (2 * g) ** t for t in range(30)))
    return run(constant_gradient(), shrinking(1 - g**2, memory), rates)


SHARP = {
    "alistarh.step": lambda: theory.step(_constant(ErrorFeedback())),
    "alistarh.sum": lambda: theory.total(_constant(ErrorFeedback())),
    "alistarh.squared": lambda: theory.squared(_growing(ErrorFeedback())),
    "alistarh.cauchy": lambda: theory.cauchy(_constant(ErrorFeedback())),
    "alistarh.constant": lambda: theory.constant(_constant(ErrorFeedback())),
    "alistarh.descent": lambda: theory.descent(on_a_slope(ErrorFeedback())),
    "alistarh.nonconvex": lambda: theory.nonconvex(on_a_slope(ErrorFeedback())),
}
BROKEN = {
    "alistarh.step": lambda: theory.step(_constant(Twofold())),
    "alistarh.sum": lambda: theory.total(_constant(Twofold())),
    "alistarh.squared": lambda: theory.squared(_growing(Twofold())),
    "alistarh.cauchy": lambda: theory.cauchy(_constant(Twofold())),
    "alistarh.constant": lambda: theory.constant(_constant(Twofold())),
    "alistarh.descent": lambda: theory.descent(on_a_slope(Forgetful())),
    "alistarh.nonconvex": lambda: theory.nonconvex(on_a_slope(Forgetful())),
}
