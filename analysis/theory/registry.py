"""The one list of checks. A new one goes into its paper's file, a new paper into a file and a line here."""

from . import beznosikov_rates, ef21, karimireddy2019, khirirat2020, natural2019, qsgd2017_convergence
from .check import Check, Statement
from .evidence import Evidence
from .probe import Probe

RUN_CHECKS: tuple[Check[Evidence], ...] = (
    *beznosikov_rates.CHECKS,
    *ef21.CHECKS,
    *karimireddy2019.CHECKS,
    *khirirat2020.CHECKS,
    *natural2019.CHECKS,
    *qsgd2017_convergence.CHECKS,
)
"""What is checked on recorded runs."""

OPERATOR_CHECKS: tuple[Check[Probe], ...] = ()
"""What is checked on a scheme's operator alone, applied to given vectors."""

STATEMENTS: dict[str, Statement] = {check.statement.name: check.statement for check in RUN_CHECKS} | {
    check.statement.name: check.statement for check in OPERATOR_CHECKS
}
