"""The one list of checks. A new one goes into its paper's file, a new paper into a file and a line here."""

from . import karimireddy2019
from .check import Check, Statement
from .evidence import Evidence
from .probe import Probe

RUN_CHECKS: tuple[Check[Evidence], ...] = (*karimireddy2019.CHECKS,)
"""What is checked on recorded runs."""

OPERATOR_CHECKS: tuple[Check[Probe], ...] = ()
"""What is checked on a scheme's operator alone, applied to given vectors."""

STATEMENTS: dict[str, Statement] = {check.statement.name: check.statement for check in RUN_CHECKS} | {
    check.statement.name: check.statement for check in OPERATOR_CHECKS
}
