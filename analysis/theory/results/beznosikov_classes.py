"""Beznosikov, Horvath, Richtarik, Safaryan 2020: the classes B1, B2 and B3 of biased compressors."""

from dataclasses import dataclass

import numpy as np

from ..check import Check, Condition, Finding, Floats, Statement
from ..probe import Probe
from .operators import of_vectors, plain, refused, stated_errors

_PAPER = "Beznosikov et al. 2020"

_RARE = 8.0
"""So many zeta^2 is the most that ||C(x)||^2 / ||x||^2 is taken to be in a draw, however rare: that of QSGD and of
TernGrad is less, that of scaled random-k is zeta^2."""

B1 = Statement(
    name="beznosikov.b1",
    title="class B1(a, b)",
    source=f"{_PAPER}, class B1",
    formula="a ||x||^2 <= E||C(x)||^2 <= b <E C(x), x>, each as 1 + left - right <= 1 over ||x||^2",
    kind="expectation",
    grade="derived",
    attained="top-k on flat vectors; scaled random-k on all; both sides",
)

B2 = Statement(
    name="beznosikov.b2",
    title="class B2(g, b)",
    source=f"{_PAPER}, class B2",
    formula="max(g ||x||^2, E||C(x)||^2 / b) <= <E C(x), x>, each as 1 + left - right <= 1 over ||x||^2",
    kind="expectation",
    grade="derived",
    attained="top-k on flat vectors; scaled random-k on all; both sides",
)

B3 = Statement(
    name="beznosikov.b3",
    title="class B3(delta), of an unbiased scheme after division by its second moment's factor",
    source=f"{_PAPER}, class B3",
    formula="E||C(x) - x||^2 <= (1 - 1/delta) ||x||^2; E||C(x)/zeta - x||^2 <= (1 - 1/zeta) ||x||^2 if unbiased",
    kind="expectation",
    grade="derived",
    attained="top-k on flat vectors; scaled random-k on all",
)


@dataclass(frozen=True)
class Classes:
    """The constants of the classes that an operator is in, on all vectors as stated or on some as measured.

    Attributes
    ----------
    a, b1 : float
        Of B1: as large and as small as may be.
    g, b2 : float
        Of B2.
    delta : float
        Of B3, of the operator after division by ``scale``; infinite if it is in no such class.
    scale : float
        1, or zeta for an unbiased operator.
    """

    a: float
    b1: float
    g: float
    b2: float
    delta: float
    scale: float = 1.0

    @property
    def rates(self) -> tuple[float, float, float]:
        """What a step of compressed gradient descent takes off f - f*, in units of mu / L: of B1, B2 and B3."""
        return self.a / self.b1**2, self.g / self.b2, 1 / self.delta


def stated_classes(error: float, unbiased: bool, selects: bool) -> Classes:
    """Return the classes that follow from what a scheme says.

    Parameters
    ----------
    error : float
        The stated worst case of E||C(x) - x||^2 / ||x||^2.
    unbiased : bool
    selects : bool
        Whether entries are sent as they are or not at all, so that <C(x), x> = ||C(x)||^2.
    """
    if unbiased:
        zeta = 1 + error
        return Classes(1.0, zeta, 1.0, zeta, zeta, zeta)
    kept = max(0.0, 1 - error)
    delta = 1 / kept if kept else float("inf")
    if selects:
        return Classes(kept, 1.0, kept, 1.0, delta)
    return Classes(kept**2 / 4, 2.0, kept / 2, 2.0, delta)


def from_b1(a: float, b: float) -> tuple[float, float]:
    """Return g and b of the class B2 that contains B1(a, b)."""
    return a / b, b


def from_b2(g: float, b: float) -> tuple[tuple[float, float], float]:
    """Return the constants of the class B1 that contains B2(g, b), and the delta of C / b."""
    return (g**2, b), b / g


def from_b3(delta: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the constants of the classes B1 and B2 that contain B3(delta)."""
    return (1 / (4 * delta**2), 2.0), (1 / (2 * delta), 2.0)


def measured_classes(probe: Probe) -> Classes:
    """Return the constants that the means over a probe's draws would allow on its vectors."""
    energy, inner = _moments(probe)
    e, i = (np.array([values.mean() for values in part.values()]) for part in (energy, inner))
    scale = 1 + float(stated_errors(probe).max()) if probe.operator.unbiased else 1.0
    with np.errstate(divide="ignore"):
        delta = 1 / (2 * i / scale - e / scale**2)
        b = np.where(e > 0, e / np.where(i > 0, i, 0.0), 0.0)
    lost = float(np.max(np.where(delta > 0, delta, np.inf)))
    return Classes(float(e.min()), float(b.max()), float(i.min()), float(b.max()), lost, scale)


def b1(probe: Probe) -> Finding:
    """Compare both inequalities of B1 for each vector."""
    if refused(_conditions(probe)):
        return Finding(B1, probe.subject, _conditions(probe), axis="vector")
    stated, energy, inner = _parts(probe)
    sides = [(c.a - energy[n], energy[n] - c.b1 * inner[n]) for n, c in stated.items()]
    return _differences(B1, probe, sides, [(c.a - _RARE * c.scale**2, -(c.b1**2) / 4) for c in stated.values()])


def b2(probe: Probe) -> Finding:
    """Compare both inequalities of B2 for each vector."""
    if refused(_conditions(probe)):
        return Finding(B2, probe.subject, _conditions(probe), axis="vector")
    stated, energy, inner = _parts(probe)
    sides = [(c.g - inner[n], energy[n] / c.b2 - inner[n]) for n, c in stated.items()]
    return _differences(B2, probe, sides, [(c.g - _RARE**0.5 * c.scale, -c.b2 / 4) for c in stated.values()])


def b3(probe: Probe) -> Finding:
    """Compare what is lost of each vector, after division by zeta if unbiased, with the class's part."""
    if refused(_conditions(probe)):
        return Finding(B3, probe.subject, _conditions(probe), axis="vector")
    stated, energy, inner = _parts(probe)
    lost = {n: np.maximum(0.0, 1 + energy[n] / c.scale**2 - 2 * inner[n] / c.scale) for n, c in stated.items()}
    bound = np.array([1 - 1 / c.delta for c in stated.values()])
    return of_vectors(B3, probe, _conditions(probe), lost, bound)


def _differences(
    statement: Statement, probe: Probe, sides: list[tuple[Floats, Floats]], lowest: list[tuple[float, float]]
) -> Finding:
    """Return a finding with two columns for each vector, left - right of an inequality, both raised by 1."""
    values = np.stack([1 + side for pair in sides for side in pair], axis=1)
    count = values.shape[1]
    return Finding(
        statement,
        probe.subject,
        _conditions(probe),
        np.arange(float(count)) // 2,
        values,
        np.ones(count),
        1e-12,
        "vector",
        probe.exact,
        np.minimum(1 + np.array(lowest).reshape(-1), values.min(axis=0)),
        np.maximum(1.0, values.max(axis=0)),
    )


def _conditions(probe: Probe) -> tuple[Condition, ...]:
    limit = np.inf if probe.operator.unbiased else 1.0
    stated = Condition("unbiased of stated variance, or a contraction", bool((stated_errors(probe) < limit).all()))
    return (*plain(probe), stated)


def _parts(probe: Probe) -> tuple[dict[str, Classes], dict[str, Floats], dict[str, Floats]]:
    """Return the stated classes and the moments, by name of vector."""
    operator = probe.operator
    errors = dict(zip(probe.vectors, stated_errors(probe).tolist(), strict=True))
    stated = {name: stated_classes(error, operator.unbiased, operator.selects) for name, error in errors.items()}
    return stated, *_moments(probe)


def _moments(probe: Probe) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return ||C(x)||^2 and <C(x), x> of every draw over ||x||^2, [R] by name; both 1 for x = 0."""
    energy, inner = {}, {}
    for name in probe.vectors:
        x, drawn = probe.flat(name)
        norm2 = float(np.square(x).sum())
        energy[name] = np.square(drawn).sum(axis=1) / norm2 if norm2 else np.ones(len(drawn))
        inner[name] = drawn @ x / norm2 if norm2 else np.ones(len(drawn))
    return energy, inner


OPERATOR_CHECKS = (Check(B1, b1), Check(B2, b2), Check(B3, b3))
