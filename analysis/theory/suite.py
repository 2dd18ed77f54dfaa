"""The suite: every check, on the convex task and on quadratics, for schemes of every kind."""

from collections.abc import Callable, Sequence

from ...sim.training.store import Store
from ..sweep.executors import Executor
from .cases import Case, ProbeCase, Result, RunCase, cases_of
from .stored import from_text, key, to_text

SCHEMES = (
    "dense",
    "ef(topk(density=0.1))",
    "ef(randomblock(density=0.1))",
    "ef(scaledsign)",
    "ef21(topk(density=0.1))",
    "topk(density=0.05)",
    "cat(operator=sq)",
    "cat(operator=stochastic)",
    "qsgd(bits=4, norm=l2)",
    "randomk(density=0.25, scaled=True, seed=own)",
)
"""What the suite trains with: each kind of scheme that a theorem speaks of."""

OTHERS: tuple[Case, ...] = (
    RunCase("ef(topk(density=0.1))", "quadratic", "small", 40),
    RunCase("ef(topk(density=0.6))", "quadratic", "constant", 40),  # more than half of the entries
    RunCase("natural", "quadratic", "inverse", 40, back="natural"),
    RunCase("natural", "logistic", "inverse", 40, back="natural"),
    ProbeCase("natural"),
    ProbeCase("terngrad(clip=0)"),
    ProbeCase("qsgd(bits=2, norm=l2, code=elias)"),
    ProbeCase("qsgd(bits=5, norm=l2, code=elias_dense)", (225,)),  # 15 levels are the root of the size
    ProbeCase("qsgd(bits=5, norm=l2, code=elias_dense)", (225,), "lonely"),  # whose numbers' code is near its limit
    ProbeCase("wangni(density=0.1)"),
    ProbeCase("atomo(budget=10, basis=elements)"),
    ProbeCase("atomo(budget=1, basis=singular)", (10, 10), "matrices"),
    ProbeCase("cat(operator=top)"),
    ProbeCase("cat(operator=top, cost=payload)"),
)
"""What else there must be for each check to apply somewhere."""


def suite_cases() -> list[Case]:
    """Return all cases of the suite."""
    return [*(case for scheme in SCHEMES for case in cases_of(scheme)), *OTHERS]


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
