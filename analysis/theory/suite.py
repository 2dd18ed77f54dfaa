"""The suite: every check, on the convex task and on quadratics, for schemes of every kind."""

from collections.abc import Callable, Iterable, Sequence

from ...sim.training.store import Store
from ..sweep.executors import Executor
from .cases import Case, cases_of
from .check import Finding
from .stored import from_text, key, to_text

SCHEMES = (
    "dense",
    "ef(topk(density=0.1))",
    "ef(randomk(density=0.1))",
    "ef(randomblock(density=0.25))",
    "ef(scaledsign)",
    "topk(density=0.25)",
    "qsgd(bits=4)",
    "natural",
    "terngrad",
)
"""What the suite tries: each kind that a theorem speaks of."""


def suite_cases() -> list[Case]:
    """Return all cases of the suite."""
    return [case for scheme in SCHEMES for case in cases_of(scheme)]


def examine(
    cases: Sequence[Case], store: Store, executor: Executor, progress: Callable[[int], None] | None = None
) -> list[Finding]:
    """Make the checks of all cases, or take their findings from the store.

    Parameters
    ----------
    cases : sequence of Case
    store : Store
        Each case's findings are put in as soon as they are there, so an interrupted suite goes on where it was.
    executor : Executor
    progress : callable, optional
        Called with the number of completed cases.

    Returns
    -------
    list of Finding
        In the order of the cases.
    """
    store.prepare()
    found = {case: from_text(text) for case in cases if (text := store.get_text(key(case))) is not None}
    report = progress or (lambda done: None)
    report(len(found))
    for case, text in executor.run(_examined, [case for case in cases if case not in found]):
        store.put_text(key(case), text)
        found[case] = from_text(text)
        report(len(found))
    return list(_in_order(cases, found))


def _examined(case: Case) -> str:
    """Make a case's checks, in whatever process."""
    return to_text(case.findings())


def _in_order(cases: Sequence[Case], found: dict[Case, list[Finding]]) -> Iterable[Finding]:
    for case in cases:
        yield from found[case]
