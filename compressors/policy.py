"""Policies: which scheme a unit gets, by its size, its kind or its name."""

from collections.abc import Hashable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer

from .base import Memory, Passes, Scheme, SchemeError, Shape, State, Turn, Wrapper, check_range, text_form
from .quantizers.dense import Dense


@dataclass(frozen=True)
class Layers(Wrapper):
    """Give some units another scheme than the rest: those for which any of the rules holds.

    ``layers(topk, below=1024)`` sends small units dense, ``layers(topk, qsgd, below=1024)`` by qsgd. Policies nest,
    and the outermost rule that holds decides.

    Parameters
    ----------
    below : int
        Units of fewer values than this.
    vectors : bool
        Parameters of fewer than two dimensions: biases, and scales and shifts of normalisation.
    names : str
        Parameters whose name matches one of these patterns, with ``*``, ``?`` and ``[...]`` as in a shell, separated
        by commas: ``names='*.bias,head.*'``.

    Notes
    -----
    A bucket or a model has no kind and no name of its own, so ``vectors`` and ``names`` need layers as units.
    """

    below: int = 0
    vectors: bool = False
    names: str = ""

    name = "layers"
    title = "units that are small, vectors or so named get another scheme, dense if none is given"
    paper = "none"
    around = "scheme, other"

    def __post_init__(self) -> None:
        check_range(self, "below", "at least 0", self.below >= 0)

    @property
    def by_parameter(self) -> bool:
        """Whether a rule asks for a single parameter's kind or name."""
        return self.vectors or bool(self.names)

    def holds(self, name: str, shape: Shape) -> bool:
        """Return whether a unit gets the other scheme."""
        patterns = [pattern.strip() for pattern in self.names.split(",") if self.names]
        named = any(fnmatchcase(name, pattern) for pattern in patterns)
        return prod(shape) < self.below or (self.vectors and len(shape) < 2) or named

    def wrap(self, schemes: tuple[Scheme, ...]) -> Scheme:
        if len(schemes) not in (1, 2):
            raise SchemeError("layers takes a scheme and one for the exceptions, as in layers(topk, dense, below=1024)")
        if not (self.below or self.by_parameter):
            raise SchemeError("layers needs a rule: below=1024, vectors=True or names='*.bias'")
        return Layered(self, schemes[0], schemes[1] if len(schemes) == 2 else Dense())


@dataclass(frozen=True)
class Layered(Scheme):
    """One scheme for most units and another for those for which a rule holds: ask :meth:`for_unit` which.

    It is neither codec nor protocol, since the two may differ. What is said of it without a unit's name goes by the
    shape alone.
    """

    rules: Layers
    inner: Scheme
    other: Scheme

    name = "layered"
    title = "a scheme for each unit"
    paper = "of its parts"

    @property
    def collective(self) -> str:  # type: ignore[override]
        """The collective operations of most units, as shown in tables."""
        return self.inner.collective

    @property
    def unbiased(self) -> bool:
        return self.inner.unbiased and self.other.unbiased

    @property
    def law(self) -> Literal["mean of sent", "estimate", "vote"]:
        return self.inner.law

    @property
    def granularity(self) -> frozenset[str]:
        own = frozenset({"layer"}) if self.rules.by_parameter else frozenset({"layer", "bucket", "model"})
        return own & self.inner.granularity & self.other.granularity

    @property
    def selects(self) -> bool:
        return self.inner.selects and self.other.selects

    @property
    def varying(self) -> bool:
        return self.inner.varying or self.other.varying

    @property
    def homogeneous(self) -> bool:
        return self.inner.homogeneous and self.other.homogeneous

    def for_unit(self, name: str, shape: Shape) -> Scheme:
        return (self.other if self.rules.holds(name, shape) else self.inner).for_unit(name, shape)

    def at(self, turn: Turn) -> Scheme:
        raise SchemeError(f"{self} decides by unit: run the scheme that for_unit gives")

    def ever(self) -> tuple[Scheme, ...]:
        return (*self.inner.ever(), *self.other.ever())

    def stage(self, step: int) -> Hashable:
        return self.inner.stage(step), self.other.stage(step)

    def check_optimizer(self, optimizer: Optimizer) -> None:
        self.inner.check_optimizer(optimizer)
        self.other.check_optimizer(optimizer)

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        """Refuse to be run itself.

        Raises
        ------
        SchemeError
            Always.
        """
        raise SchemeError(f"{self} decides by unit: run the scheme that for_unit gives")

    def error_bound(self, shape: Shape) -> float:
        return self.for_unit("", shape).error_bound(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return self.for_unit("", shape).wire_bytes(shape, itemsize)

    def passes(self, shape: Shape) -> Passes:
        return self.for_unit("", shape).passes(shape)

    def parts(self) -> tuple[Scheme | Memory, ...]:
        return self.inner.parts()

    def shaped_parts(self, shape: Shape) -> tuple[tuple[Scheme | Memory, Shape], ...]:
        return self.for_unit("", shape).shaped_parts(shape)

    def __str__(self) -> str:
        return text_form(self.rules, self.inner, *(() if self.other == Dense() else (self.other,)))
