"""The one list of checks. A new one goes into its paper's file, a new paper into a file and a line here."""

from .check import Check, Statement
from .evidence import Evidence
from .probe import Probe
from .results import (
    alistarh2018,
    atomo2018,
    beznosikov_classes,
    beznosikov_rates,
    ef21,
    feedback2019,
    karimireddy2019,
    khirirat2020,
    khirirat2020_tuning,
    natural2019,
    operators,
    qsgd2017,
    qsgd2017_convergence,
    stich2018,
    wangni2018,
)

RUN_CHECKS: tuple[Check[Evidence], ...] = (
    *stich2018.CHECKS,
    *karimireddy2019.CHECKS,
    *feedback2019.CHECKS,
    *alistarh2018.CHECKS,
    *qsgd2017_convergence.CHECKS,
    *natural2019.CHECKS,
    *khirirat2020.CHECKS,
    *ef21.CHECKS,
    *beznosikov_rates.CHECKS,
)
"""What is checked on recorded runs."""

OPERATOR_CHECKS: tuple[Check[Probe], ...] = (
    *operators.OPERATOR_CHECKS,
    *beznosikov_classes.OPERATOR_CHECKS,
    *qsgd2017.OPERATOR_CHECKS,
    *atomo2018.OPERATOR_CHECKS,
    *wangni2018.OPERATOR_CHECKS,
    *khirirat2020_tuning.OPERATOR_CHECKS,
)
"""What is checked on a scheme's operator alone, applied to given vectors."""

GUARANTEES = frozenset(
    {
        "stich.theorem",
        "karimireddy.average",
        "karimireddy.least",
        "karimireddy.best",
        "karimireddy.nonsmooth",
        "feedback.gradient",
        "alistarh.convex",
        "alistarh.nonconvex",
        "qsgd.convex",
        "qsgd.convex_any_step",
        "natural.sgd",
        "natural.bidirectional",
        "khirirat.product",
        "khirirat.steps_strong",
        "khirirat.steps_convex",
        "khirirat.steps_nonconvex",
        "ef21.nonconvex",
        "ef21.pl",
        "beznosikov.b1_rate",
        "beznosikov.b2_rate",
        "beznosikov.b3_rate",
    }
)
"""Statements that training gets near to an optimum, or to where gradients are small; the others serve their proofs."""

STATEMENTS: dict[str, Statement] = {check.statement.name: check.statement for check in RUN_CHECKS} | {
    check.statement.name: check.statement for check in OPERATOR_CHECKS
}
