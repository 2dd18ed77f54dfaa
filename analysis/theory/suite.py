"""The suite: every check, on the convex task and on quadratics, for schemes of every kind."""

from collections.abc import Callable, Sequence

from ...sim.training.store import Store
from ..sweep.executors import Executor
from .cases import Case, Result, cases_of
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
) -> list[Result]:
    """Make the checks of all cases, or take their results from the store.

    Parameters
    ----------
    cases : sequence of Case
    store : Store
        Each case's result is put in as soon as it is there, so an interrupted suite goes on where it was.
    executor : Executor
    progress : callable, optional
        Called with the number of completed cases.

    Returns
    -------
    list of Result
        In the order of the cases.
    """
    store.prepare()
    found = {case: from_text(text) for case in cases if (text := store.get_text(key(case))) is not None}
    if progress is not None:
        progress(len(found))
    for case, text in executor.run(_examined, [case for case in cases if case not in found]):
        store.put_text(key(case), text)
        found[case] = from_text(text)
        if progress is not None:
            progress(len(found))
    return [found[case] for case in cases]


def _examined(case: Case) -> str:
    """Make a case's checks, in whatever process."""
    return to_text(case.result())
