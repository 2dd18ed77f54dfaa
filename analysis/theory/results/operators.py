"""What every scheme says of its operator: how much it loses at most, and whether it keeps the expectation."""

from collections.abc import Mapping

import numpy as np

from ....compressors.sparsifiers.aligned import AlignedSparsifier
from ..check import Check, Condition, Finding, Floats, Statement
from ..probe import Probe

_ROUNDING = 1e-12
"""What float64 may make of 0, in units of the vector's largest entry, or of ||x||^2."""

CONTRACTION = Statement(
    name="operator.contraction",
    title="a biased scheme loses at most the stated part",
    source="Stich et al. 2018 (k-contraction); Karimireddy et al. 2019 (delta-approximate compressor)",
    formula="E||C(x) - x||^2 <= (1 - delta) ||x||^2",
    kind="expectation",
    grade="derived",
    attained="random-k and random-block: every vector; top-k: flat vectors",
)

VARIANCE = Statement(
    name="operator.variance",
    title="an unbiased scheme's variance is at most the stated multiple",
    source="Alistarh et al. 2017, Lemma 3.1; Horvath et al. 2019, Theorem 1",
    formula="E||C(x) - x||^2 <= omega ||x||^2",
    kind="expectation",
    grade="derived",
    attained="natural compression: 4/3 of powers of two; QSGD of one level: long flat vectors; scaled random-k: all",
)

UNBIASED = Statement(
    name="operator.unbiased",
    title="an unbiased scheme keeps the expectation of every entry",
    source="Alistarh et al. 2017, Lemma 3.1; Wang et al. 2018",
    formula="E C(x)_i = x_i for every entry i",
    kind="expectation",
    grade="derived",
    attained="every vector",
    relation="equal",
)

EQUALITY = Statement(
    name="operator.equality",
    title="random-k and random-block lose the same part of every vector",
    source="Stich et al. 2018; for blocks derived",
    formula="E||C(x) - x||^2 = (1 - k/n) ||x||^2, or (n/k - 1) ||x||^2 where scaled",
    kind="expectation",
    grade="derived",
    attained="every vector",
    relation="equal",
)


def contraction(probe: Probe) -> Finding:
    """Compare what is lost of each vector with the stated worst case."""
    conditions = (
        *plain(probe),
        Condition("a biased scheme", not probe.operator.unbiased),
        Condition("a stated loss of at most everything", bool((stated_errors(probe) <= 1).all())),
    )
    if refused(conditions):
        return Finding(CONTRACTION, probe.subject, conditions, axis="vector")
    return of_errors(CONTRACTION, probe, conditions, stated_errors(probe))


def variance(probe: Probe) -> Finding:
    """Compare the variance for each vector with the stated worst case."""
    conditions = (
        *plain(probe),
        Condition("an unbiased scheme", probe.operator.unbiased),
        Condition("a stated variance factor", bool(np.isfinite(stated_errors(probe)).all())),
    )
    if refused(conditions):
        return Finding(VARIANCE, probe.subject, conditions, axis="vector")
    return of_errors(VARIANCE, probe, conditions, stated_errors(probe))


def unbiased(probe: Probe) -> Finding:
    """Compare the mean of each entry with it.

    The columns are the entries of all vectors, in units of each vector's largest. The rarest entries may never be sent
    in all draws, so limits are Hoeffding's where they must be. The largest value that an entry may get is taken to be
    the largest that was seen in its vector, or 1 + omega times its largest entry, which random-k attains.
    """
    conditions = (*plain(probe), Condition("an unbiased scheme", probe.operator.unbiased))
    if refused(conditions):
        return Finding(UNBIASED, probe.subject, conditions, axis="entry")
    values, expected, least, most = [], [], [], []
    for name, omega in zip(probe.vectors, stated_errors(probe), strict=True):
        x, drawn = probe.flat(name)
        unit = np.where(x < 0, -1.0, 1.0) * float(np.abs(x).max())
        values.append(drawn / unit)
        expected.append(x / unit)
        least.append(np.minimum(0.0, values[-1].min(axis=0)))
        rare = 1 + float(omega) if np.isfinite(omega) else 1.0
        most.append(np.full(len(x), max(rare, float(np.abs(values[-1]).max()))))
    bound = np.concatenate(expected)
    return Finding(
        UNBIASED,
        probe.subject,
        conditions,
        np.arange(float(len(bound))),
        np.concatenate(values, axis=1),
        bound,
        _ROUNDING,
        "entry",
        probe.exact,
        np.concatenate(least),
        np.concatenate(most),
    )


def equality(probe: Probe) -> Finding:
    """Compare what is lost of each vector with the part that every vector loses."""
    aligned = isinstance(probe.operator, AlignedSparsifier)
    conditions = (*plain(probe), Condition("random-k or random-block", aligned))
    if refused(conditions):
        return Finding(EQUALITY, probe.subject, conditions, axis="vector")
    stated = stated_errors(probe)
    most = np.maximum(1.0, stated**2) if probe.operator.unbiased else np.ones(len(stated))
    return of_errors(EQUALITY, probe, conditions, stated, most)


def plain(probe: Probe) -> tuple[Condition, ...]:
    """Return what all statements about an operator presuppose."""
    return (
        Condition("no vector of zeros", all(bool(np.any(vector)) for vector in probe.vectors.values())),
        probe.steady,
        Condition("the mean of what workers send is what they get", probe.operator.law == "mean of sent"),
    )


def refused(conditions: tuple[Condition, ...]) -> bool:
    """Return whether a condition does not hold, so that nothing need be measured."""
    return any(condition.holds is False for condition in conditions)


def of_errors(
    statement: Statement, probe: Probe, conditions: tuple[Condition, ...], bound: Floats, most: Floats | None = None
) -> Finding:
    """Return the finding about ||C(x) - x||^2 / ||x||^2 of each vector; see :func:`of_vectors`."""
    return of_vectors(statement, probe, conditions, probe.errors(), bound, most)


def of_vectors(
    statement: Statement,
    probe: Probe,
    conditions: tuple[Condition, ...],
    drawn: Mapping[str, Floats],
    bound: Floats,
    most: Floats | None = None,
) -> Finding:
    """Return the finding with a column for each vector.

    Parameters
    ----------
    drawn : mapping of str to array
        Values that are not negative and relative to ||x||^2, [R] by the vector's name.
    bound : array, shape [K]
    most : array, shape [K], optional
        What no value exceeds. Where it is not known, the largest that was seen serves for lower limits: if there are
        larger ones, the expectation is only higher.
    """
    values = np.stack([drawn[name] for name in probe.vectors], axis=1)
    steps, seen = np.arange(float(len(bound))), values.max(axis=0)
    ends = (np.zeros(len(bound)), seen if most is None else np.maximum(most, seen))
    return Finding(statement, probe.subject, conditions, steps, values, bound, _ROUNDING, "vector", probe.exact, *ends)


def stated_errors(probe: Probe) -> Floats:
    """Return the stated worst case of the relative error for each vector's shape."""
    return np.array([probe.operator.error_bound(tuple(vector.shape)) for vector in probe.vectors.values()])


OPERATOR_CHECKS = (
    Check(CONTRACTION, contraction),
    Check(VARIANCE, variance),
    Check(UNBIASED, unbiased),
    Check(EQUALITY, equality),
)
