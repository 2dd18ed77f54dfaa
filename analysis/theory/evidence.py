"""Evidence: recorded runs of one scheme on one problem, and what is known of both."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from ...compressors.base import Scheme, Shape
from ...compressors.remember import Remembering
from ...sim.training.record import Trace, memory_kind
from .check import Condition, Finding, Floats, Statement
from .probe import draws_lots

How = Literal["exact", "measured", "sampled"]

ONE_WAY = Condition("nothing is compressed on the way back from the exchange", holds=False)
"""What does not hold of runs that compress on the way back, and is presupposed by all statements but those on that."""


class Constant(NamedTuple):
    """A constant of a problem and how it is known.

    ``exact``: computed from the definition; ``measured``: the largest value met in these very runs, which is what the
    proofs use; ``sampled``: met at some points, while the statement speaks of others too.
    """

    value: float
    how: How


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the problem that was trained.

    Attributes
    ----------
    smoothness : Constant or None
        L. None: the objective has none.
    strong_convexity : Constant or None
        mu, above 0. None: it is not known to be strongly convex.
    convex : bool
    least : Constant
        f*, or a lower bound of f where ``sampled``.
    optimum : array, shape [d], or None
        x*, where it is known.
    noise : Constant or None
        sigma^2, with E||g_i - grad f_i(x)||^2 <= sigma^2 for a worker's stochastic gradient, f_i being the worker's
        own objective, where it is known.
    value, gradient : callable or None
        f(x) and grad f(x) for x of shape [d], where they can be had.
    identical : bool
        Whether all workers' gradients have the same expectation, so that every f_i is f.
    own_smoothness : Constant or None
        The root of the mean over workers of L_i^2, f_i being L_i-smooth, where workers differ and it is known.
    heterogeneity : Constant or None
        zeta^2, with mean over workers of ||grad f_i(x) - grad f(x)||^2 <= zeta^2, where they differ and it is known.
    conditions : tuple of Condition
        What holds, or not, of how it was trained: plain SGD, independent examples.
    drawing : tuple of Condition
        Those of them that are about how examples were drawn, which statements about every run do not need.
    rough : tuple of str
        Operations for which the objective is not smooth.
    rounding : float
        What a step may be off by rounding, relative to the largest vector.
    """

    smoothness: Constant | None
    strong_convexity: Constant | None
    convex: bool
    least: Constant
    optimum: Floats | None = None
    noise: Constant | None = None
    value: Callable[[Floats], float] | None = None
    gradient: Callable[[Floats], Floats] | None = None
    identical: bool = True
    own_smoothness: Constant | None = None
    heterogeneity: Constant | None = None
    conditions: tuple[Condition, ...] = ()
    drawing: tuple[Condition, ...] = ()
    rough: tuple[str, ...] = ()
    rounding: float = 1e-12


@dataclass(frozen=True, eq=False)
class Evidence:
    """Runs of a scheme that differ in their seeds alone.

    Where there is compression on the way back, :data:`ONE_WAY` is put among the conditions of ``facts``. Every
    statement about runs asks for those before it computes anything, so that none need ask for ``back``; one that allows
    it asks for :attr:`both_ways` in their place.

    Attributes
    ----------
    subject : str
        Scheme and problem, as shown in tables.
    scheme : Scheme
    shapes : tuple of Shape
        Of the units.
    workers : int
    traces : tuple of Trace
        R runs, of S steps each.
    facts : Facts
    back : Scheme or None
        What the mean was compressed with once more before it was applied; None: with nothing.
    """

    subject: str
    scheme: Scheme
    shapes: tuple[Shape, ...]
    workers: int
    traces: tuple[Trace, ...]
    facts: Facts
    back: Scheme | None = None

    def __post_init__(self) -> None:
        if self.back is not None and ONE_WAY not in self.facts.conditions:
            facts = replace(self.facts, conditions=(*self.facts.conditions, ONE_WAY))
            object.__setattr__(self, "facts", facts)

    @property
    def both_ways(self) -> tuple[Condition, ...]:
        """The conditions of ``facts`` for a statement that allows compression on the way back."""
        return tuple(condition for condition in self.facts.conditions if condition != ONE_WAY)

    @property
    def memory(self) -> str:
        """``none``, ``ef``, ``ef21`` or ``other``."""
        return memory_kind(self.scheme)

    @property
    def inner(self) -> Scheme:
        """The scheme without its memory."""
        return self.scheme.inner if isinstance(self.scheme, Remembering) else self.scheme

    @property
    def error(self) -> float:
        """The stated worst case of E||C(x) - x||^2 / ||x||^2: 1 - delta of a contraction, omega if unbiased."""
        return self._stated(self.inner)

    @property
    def back_error(self) -> float:
        """The same of what compresses on the way back, 0 if nothing does."""
        return 0.0 if self.back is None else self._stated(self.back)

    def _stated(self, scheme: Scheme) -> float:
        return max(phase.error_bound(shape) for phase in scheme.ever() for shape in self.shapes)

    @property
    def steps(self) -> int:
        """S."""
        return len(self.traces[0].lr)

    @property
    def lr(self) -> Floats:
        """The learning rates, [S]."""
        return self.traces[0].lr

    def stack(self, name: str) -> Floats:
        """Return a measured quantity of all runs, [R, S] or [R, S+1]."""
        return np.stack([getattr(trace, name) for trace in self.traces])

    @cached_property
    def exact(self) -> bool:
        """Whether nothing is drawn in these runs: several seeds gave the very same one, and the scheme draws nothing.

        Seeds alone may be the same by chance: of a vector with one entry, random-k loses the same nearly always.
        """
        drawn = [self.stack(name) for name in ("own2", "applied2", "loss")]
        kept = [trace.position for trace in self.traces if trace.position is not None]
        drawn += [np.stack(kept)] if len(kept) == len(self.traces) else []
        same = len(self.traces) > 1 and all(bool(((rows == rows[0]) | np.isnan(rows)).all()) for rows in drawn)
        return same and not any(draws_lots(phase, shape, 0) for phase in self.inner.ever() for shape in self.shapes)

    def finding(
        self,
        statement: Statement,
        conditions: tuple[Condition, ...],
        steps: Floats,
        values: Floats,
        bound: Floats,
        slack: float = 0.0,
    ) -> Finding:
        """Return a finding about these runs; see :class:`Finding` for its parts."""
        if statement.kind == "path":
            conditions = tuple(condition for condition in conditions if condition not in self.facts.drawing)
        return Finding(statement, self.subject, conditions, steps, values, bound, slack, exact=self.exact)

    def second_moment(self) -> Constant:
        """Return the least G^2 with mean over runs and workers of ||g_i||^2 <= G^2 at every step of these runs."""
        return Constant(float(self.stack("own2").mean(axis=0).max()), "measured")

    def constant_rate(self) -> Condition:
        """Return the condition that the learning rate is constant."""
        return Condition("a constant learning rate", bool(np.ptp(self.lr) == 0))
