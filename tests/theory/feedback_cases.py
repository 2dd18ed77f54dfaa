"""Where the bounds without bounded gradients are sharp, and what breaks them."""

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.results import feedback2019 as theory
from gradwire.compressors.feedback import ErrorFeedback

from .feedback_instances import Forgetful, constant_gradient, run, shrinking, slope_into_parabola


def _memory(delta: float) -> Finding:
    return theory.memory(run(constant_gradient(), shrinking(delta, claimed=0.05), (0.1,) * 400))


def _gradient(memory: ErrorFeedback) -> Finding:
    """100 steps of 0.05 on the slope, where nothing is forgotten; without the memory it takes 950."""
    return theory.gradient(run(slope_into_parabola(5), shrinking(0.2, memory), (0.05,) * 500))


SHARP = {
    "feedback.memory": lambda: _memory(0.05),
    "feedback.gradient": lambda: _gradient(ErrorFeedback()),
}
BROKEN = {
    "feedback.memory": lambda: _memory(0.025),
    "feedback.gradient": lambda: _gradient(Forgetful()),
}
