"""Where the statements of Karimireddy et al. 2019 are sharp, and what breaks them."""

from functools import cache

import torch

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.evidence import Evidence
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic
from gradwire.analysis.theory.results import karimireddy2019 as theory
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.remember import remember
from gradwire.compressors.spec import parse_scheme

from .feedback_instances import (
    Forgetful,
    Twofold,
    absolute_value,
    constant_gradient,
    on_a_slope,
    run,
    shrinking,
)


@cache
def _constant(delta: float, claimed: float, memory: ErrorFeedback | None = None, steps: int = 400) -> Evidence:
    return run(constant_gradient(), shrinking(delta, memory, claimed), (0.1,) * steps)


def _absolute(memory: ErrorFeedback) -> Evidence:
    """The learning rate that is best for as many steps."""
    return run(absolute_value(2.0, 3.0), shrinking(0.75, memory), (3.0 / (2.0 * 200),) * 200)


def _identity(memory: ErrorFeedback) -> Finding:
    problem = NoisyQuadratic(torch.linspace(0.1, 1, 10), 1.0, 3, torch.ones(10))
    scheme = remember(memory, parse_scheme("topk(density=0.2)"))
    return theory.identity(Trial(problem, scheme, (0.1,) * 20).run())


SHARP = {
    "karimireddy.identity": lambda: _identity(ErrorFeedback()),
    "karimireddy.memory": lambda: theory.memory(_constant(0.05, 0.05)),
    "karimireddy.memory_sharp": lambda: theory.memory_sharp(_constant(0.3, 0.3, steps=100)),
    "karimireddy.pathwise": lambda: theory.pathwise(_constant(0.3, 0.3, steps=100)),
    "karimireddy.average": lambda: theory.average(on_a_slope(ErrorFeedback())),
    "karimireddy.least": lambda: theory.least(on_a_slope(ErrorFeedback())),
    "karimireddy.best": lambda: theory.best(on_a_slope(ErrorFeedback())),
    "karimireddy.nonsmooth": lambda: theory.nonsmooth(_absolute(ErrorFeedback())),
}
BROKEN = {
    "karimireddy.identity": lambda: _identity(Forgetful()),
    "karimireddy.memory": lambda: theory.memory(_constant(0.025, 0.05)),
    "karimireddy.memory_sharp": lambda: theory.memory_sharp(_constant(0.29, 0.3, steps=100)),
    "karimireddy.pathwise": lambda: theory.pathwise(_constant(0.3, 0.3, Twofold(), steps=20)),
    "karimireddy.average": lambda: theory.average(on_a_slope(Forgetful())),
    "karimireddy.least": lambda: theory.least(on_a_slope(Forgetful())),
    "karimireddy.best": lambda: theory.best(on_a_slope(Forgetful())),
    "karimireddy.nonsmooth": lambda: theory.nonsmooth(_absolute(Forgetful())),
}
