"""The contract of a compression scheme: what it puts on the wire and what comes back.

A scheme never calls the network. A :class:`Codec` turns each worker's values into buffers in wire form and back;
a :class:`Protocol` of several rounds *yields* what it wants exchanged and is sent the replies. A driver
(:mod:`gradwire.compressors.drivers`) does the exchange: stacked in one process, or over ``torch.distributed``.

Shapes: ``W`` is the number of workers whose rows live in this process, ``N`` the number of all workers, ``n`` the
number of values in a unit (a layer, a bucket or the whole model).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import lru_cache
from keyword import iskeyword
from math import ceil
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from .decoded import Decoded
from .errors import InputError
from .payload import Payload
from .requests import Request

Shape = tuple[int, ...]
Rate = float | Tensor


class SchemeError(InputError):
    """A scheme that cannot work as asked for: a wrong parameter, an impossible pair, a unit it cannot take."""


class NonFiniteError(ArithmeticError):
    """A gradient holds an infinity or a NaN, which some schemes would hide from whoever watches the loss.

    Parameters
    ----------
    message : str
    ranks : tuple of int
        The workers that hold such a value, where known.
    """

    def __init__(self, message: str, ranks: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.ranks = ranks


@dataclass(frozen=True)
class Turn:
    """What every worker knows about an exchange without communicating.

    Attributes
    ----------
    seed : int
        The run's seed; keys all random draws together with the fields below.
    step : int
        The optimizer step, from 0.
    unit : str
        The unit's name.
    ranks : tuple of int
        The global ranks of this process's rows; ``len(ranks) == W``.
    size : int
        N, the number of all workers.
    lr : float or Tensor
        The learning rate that the update of this step will be multiplied by. A tensor of the unit's shape where the
        unit spans parameter groups with different rates.
    """

    seed: int
    step: int
    unit: str
    ranks: tuple[int, ...]
    size: int
    lr: Rate = 1.0


@dataclass
class State:
    """What a scheme remembers of one unit between steps.

    A state is a value: whoever passes it to ``encode`` or ``rounds`` gives it away and keeps the one that is returned.
    The three parts say what a checkpoint may do with them. ``elements`` are ``[W, n]`` values that belong to single
    parameters and survive another partition into units; ``rows`` are ``[W, ...]`` values of a worker that belong to the
    unit as a whole; ``shared`` is the same on every worker.
    """

    elements: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, Rate] = field(default_factory=dict)
    inner: "State | None" = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state as nested dicts of tensors and numbers, for a checkpoint."""
        parts = {"elements": dict(self.elements), "rows": dict(self.rows), "shared": dict(self.shared)}
        return {**parts, "inner": None if self.inner is None else self.inner.state_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "State":
        """Rebuild a state from :meth:`state_dict`'s result."""
        inner = None if data["inner"] is None else cls.from_dict(data["inner"])
        return cls(dict(data["elements"]), dict(data["rows"]), dict(data["shared"]), inner)

    def map(self, change: Callable[[Tensor], Tensor]) -> "State":
        """Return the state with ``change`` of every tensor; ``torch.clone`` gives a copy to go back to."""
        shared = {key: change(value) if isinstance(value, Tensor) else value for key, value in self.shared.items()}
        elements = {key: change(value) for key, value in self.elements.items()}
        rows = {key: change(value) for key, value in self.rows.items()}
        return State(elements, rows, shared, None if self.inner is None else self.inner.map(change))

    def take(self, rows: slice) -> "State":
        """Return the part of the state that belongs to some of this process's workers, to spread a checkpoint."""
        elements = {key: value[rows] for key, value in self.elements.items()}
        own = {key: value[rows] for key, value in self.rows.items()}
        return State(elements, own, dict(self.shared), None if self.inner is None else self.inner.take(rows))

    @classmethod
    def join(cls, parts: "list[State]") -> "State":
        """Put the states of consecutive groups of workers together again; undoes :meth:`take`."""
        first = parts[0]
        elements = {key: torch.cat([part.elements[key] for part in parts]) for key in first.elements}
        rows = {key: torch.cat([part.rows[key] for part in parts]) for key in first.rows}
        inner = None if first.inner is None else cls.join([part.inner for part in parts if part.inner is not None])
        return cls(elements, rows, dict(first.shared), inner)


class Outcome(NamedTuple):
    """What an exchange of one unit leaves on a process.

    Attributes
    ----------
    mean : Tensor, shape of the unit
        What every worker ends up with.
    sent : Decoded, W rows
        Each local worker's accepted contribution: unless the scheme's ``law`` says otherwise, the average of ``sent``
        over all N workers is ``mean``.
    state : State
        What to pass at the next step.
    """

    mean: Tensor
    sent: Decoded
    state: State


Rounds = Generator[Request, Payload, Outcome]

# ---------------------------------------------------------------------------------------------------- the two kinds


class Passes(NamedTuple):
    """How often a fused implementation must read or write a unit's n values, for cost models.

    ``encode`` before the first round, ``between`` before each further round, ``decode`` for *one* received payload of a
    codec, and for all that a protocol's last round brings.
    """

    encode: float
    between: float
    decode: float


@dataclass(frozen=True)
class Scheme(ABC):
    """A compression scheme with its parameters, which are the dataclass's fields and the keys of its text form.

    Subclasses are either a :class:`Codec` or a :class:`Protocol`. Every parameter has a default.
    """

    name: ClassVar[str]
    """The name in the text form, in tables and in cost models."""
    title: ClassVar[str]
    """One line: what travels."""
    paper: ClassVar[str]
    """Where the scheme comes from: authors, year, where to find it."""
    collective: ClassVar[str]
    """The collective operations that it asks for, as shown in tables."""
    state: ClassVar[str] = "none"
    """What it remembers, as shown in tables."""
    examples: ClassVar[tuple[str, ...]] = ()
    """Text forms worth showing and testing besides the default one."""

    @property
    @abstractmethod
    def unbiased(self) -> bool:
        """Whether the expectation of what is decoded is the input."""

    @property
    def law(self) -> Literal["mean of sent", "estimate", "vote"]:
        """How ``mean`` follows from ``sent``."""
        return "mean of sent"

    @property
    def granularity(self) -> frozenset[str]:
        """The units that it can take: layers, buckets, the whole model."""
        return frozenset({"layer", "bucket", "model"})

    @property
    def selects(self) -> bool:
        """Whether each entry is sent bit for bit or not at all, so that error feedback loses nothing to rounding."""
        return False

    @property
    def varying(self) -> bool:
        """Whether the length of a payload depends on the values, so that :meth:`wire_bytes` is an estimate."""
        return False

    @property
    def by_workers(self) -> bool:
        """Whether what is sent depends on N: the length of a codec's payload, or the rounds of a protocol."""
        return False

    @property
    def homogeneous(self) -> bool:
        """Whether C(a x) = a C(x) for every a > 0, which a threshold or a clip in absolute units breaks."""
        return True

    def for_unit(self, name: str, shape: Shape) -> "Scheme":
        """Return the scheme that a unit gets; it differs from this one under a policy by layer."""
        return self

    def at(self, turn: Turn) -> "Scheme":
        """Return the scheme that runs at a turn; it differs from this one under a schedule."""
        return self

    def ever(self) -> "tuple[Scheme, ...]":
        """Return the schemes between which a schedule moves: what must hold at every step is asked of each."""
        return (self,)

    def stage(self, step: int) -> Hashable:
        """Return what tells steps apart that send by other rules, as in a warm-up; None if all are alike."""
        return None

    def check_optimizer(self, optimizer: Optimizer) -> None:  # noqa: B027
        """Raise :class:`SchemeError` if what is exchanged must not go into this optimizer."""

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        """Return the state before the first step; it is empty unless a scheme overrides this.

        Parameters
        ----------
        shape : tuple of int
            The unit's shape: a parameter's for a layer, ``(n,)`` for a bucket or a model.
        workers : int
            W.
        like : Tensor
            Gives dtype and device.

        Raises
        ------
        SchemeError
            If the scheme cannot take a unit of this shape.
        """
        return State()

    @abstractmethod
    def error_bound(self, shape: Shape) -> float:
        """Return the supremum over x of E‖C(x) - x‖² / ‖x‖², or an upper bound of it.

        It is omega for an unbiased scheme and 1 - delta for a contractive one. Error feedback needs it to be at most 1.
        In a protocol where one worker may keep what another could not send, it bounds the error of ``mean`` over the
        workers' mean of ‖x‖².
        """

    @abstractmethod
    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        """Return the bytes that a worker hands over for a unit, by the textbook formula, over all rounds.

        Where one worker leads or is the root of a tree, it is what the worker that sends most hands over.

        Drivers never use it: they charge the buffers. It is for tables, and a test holds the two together. Headers
        (:data:`gradwire.compressors.payload.HEADER_BYTES` a unit, in gathers) are included.
        """

    @abstractmethod
    def passes(self, shape: Shape) -> Passes:
        """Return how often a fused implementation must touch the unit's values."""

    def parts(self) -> "tuple[Scheme | Memory, ...]":
        """Return the stages that work on a unit, outermost first; a plain scheme is its own only part."""
        return (self,)

    def shaped_parts(self, shape: Shape) -> "tuple[tuple[Scheme | Memory, Shape], ...]":
        """Return the parts, each with the shape of what it works on where the unit has this shape."""
        return tuple((part, shape) for part in self.parts())

    def __str__(self) -> str:
        """Return the text form, ``name(key=value)``: the first parameter, and what differs from its default."""
        return text_form(self)


class Codec(Scheme):
    """A scheme of one round: encode, one collective, decode."""

    @property
    @abstractmethod
    def combine(self) -> Literal["sum", "gather"]:
        """``sum``: the sum of payloads is the payload of the sum, so an all-reduce serves; ``gather``: it is not."""

    @abstractmethod
    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        """Compress each worker's values.

        Parameters
        ----------
        x : Tensor, shape [W, *unit shape]
            Not changed. The payload and ``sent`` may share its memory.
        state, turn
            This unit's state, given away; what is known of the exchange.

        Returns
        -------
        payload : Payload, W rows
        sent : Decoded, W rows
            What ``decode`` would give for the own payload, which falls out of encoding.
        state : State
        """

    @abstractmethod
    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        """Read payloads; what is needed beyond them is derived from ``turn`` and nothing else.

        Parameters
        ----------
        payload : Payload, R rows
            R = N after a gather, 1 after a sum.
        """

    def receive(self, mean: Tensor, state: State, turn: Turn) -> tuple[Tensor, State]:
        """Turn the decoded mean into what the optimizer gets, where the receiver has a state of its own."""
        return mean, state


class Protocol(Scheme):
    """A scheme of several rounds, or of another collective than a plain sum or gather."""

    @property
    def by_workers(self) -> bool:
        """Return True: who sends what to whom, and in how many rounds, may depend on N."""
        return True

    @abstractmethod
    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        """Yield requests, be sent their replies, and return the :class:`Outcome`.

        All workers must yield the same kinds of requests in the same order. ``x`` is as in :meth:`Codec.encode`.
        """


@dataclass(frozen=True)
class Memory(ABC):
    """What wraps a scheme and remembers for it: error feedback, EF21, momentum correction, a low pass."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    state: ClassVar[str]
    estimates: ClassVar[bool] = False
    """Whether ``receive`` gives an estimate of the mean in place of the mean of what was sent."""

    @property
    def homogeneous(self) -> bool:
        """Whether multiplying all gradients by a > 0 multiplies all that is remembered by a."""
        return True

    @abstractmethod
    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        """Return the memory's own state before the first step."""

    def around(self, inner: Scheme) -> "Scheme | None":
        """Return the wrapped scheme where it is of the memory's own kind, or None for the ordinary kind."""
        return None

    @abstractmethod
    def check(self, inner: Scheme, shape: Shape) -> None:
        """Raise :class:`SchemeError` if this memory must not wrap ``inner`` on units of this shape."""

    def idle(self, turn: Turn) -> bool:
        """Return whether nothing is to be sent or changed at this turn."""
        return False

    @abstractmethod
    def before(self, x: Tensor, state: State, turn: Turn) -> Tensor:
        """Return what the wrapped scheme gets instead of ``x``; it may live in the state's memory."""

    @abstractmethod
    def after(self, p: Tensor, sent: Decoded, state: State, turn: Turn) -> State:
        """Return the state after ``sent`` of ``p`` was accepted; may write to ``p``."""

    def receive(self, mean: Tensor, state: State, turn: Turn) -> tuple[Tensor, State]:
        """Turn the exchanged mean into what the optimizer gets."""
        return mean, state

    def check_optimizer(self, optimizer: Optimizer) -> None:  # noqa: B027
        """Raise :class:`SchemeError` if what is exchanged must not go into this optimizer."""

    @abstractmethod
    def passes(self, shape: Shape) -> Passes:
        """Return how often a fused implementation must touch the unit's values."""


@dataclass(frozen=True)
class Wrapper(ABC):
    """What makes one scheme of others and remembers nothing itself: schedules, policies by layer.

    Its fields are the parameters of the text form, ``name(scheme, ..., key=value)``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    around: ClassVar[str]
    """The schemes in its text form, as shown in tables and messages."""

    @abstractmethod
    def wrap(self, schemes: tuple[Scheme, ...]) -> Scheme:
        """Make the scheme.

        Raises
        ------
        SchemeError
            If these schemes, or so many, do not go together.
        """


@lru_cache(maxsize=1024)
def text_form(part: Scheme | Memory | Wrapper, *inner: Scheme) -> str:
    """Write a scheme, or what goes around the ``inner`` ones, as ``name(inner, key=value)``.

    A scheme's first parameter says how strongly it compresses and always shows; the others show where they differ from
    their defaults.
    """
    parameters = fields(part)
    shown = [f for i, f in enumerate(parameters) if getattr(part, f.name) != f.default or (i == 0 and not inner)]
    inside = [str(scheme) for scheme in inner] + [f"{f.name}={_written(getattr(part, f.name))}" for f in shown]
    return f"{part.name}({', '.join(inside)})" if inside else part.name


def _written(value: object) -> str:
    """Return a parameter's text, the same for values that compare equal: 1.0 is written as 1, (3,) as 3."""
    if isinstance(value, tuple) and len(value) == 1:
        return _written(value[0])
    if isinstance(value, str) and not (value.isidentifier() and not iskeyword(value)):
        return repr(value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def check_range(scheme: Scheme | Memory | Wrapper, key: str, allowed: str, ok: bool) -> None:
    """Raise a :class:`SchemeError` that names the parameter, its value and what is allowed, unless ``ok``."""
    if not ok:
        raise SchemeError(f"{scheme.name}: {key} = {getattr(scheme, key)!r} is out of range: {key} must be {allowed}")


def check_elements(shape: Shape, unit: str = "") -> None:
    """Raise a :class:`SchemeError` for a unit of no values, of which no scheme can say anything."""
    if math.prod(shape) == 0:
        named = f"unit {unit}" if unit else "a unit"
        raise SchemeError(f"{named} of shape {tuple(shape)} has no elements, so there is nothing to exchange")


def check_finite(x: Tensor, turn: Turn) -> None:
    """Refuse infinities and NaNs in values ``[W, ...]``, which some schemes would hide from whoever watches the loss.

    A finite sum proves that there are none; one that overflows proves nothing.

    Raises
    ------
    NonFiniteError
        With the step, the unit and the workers.
    """
    if math.isfinite(float(x.sum())) or bool(torch.isfinite(x).all()):
        return
    finite = torch.isfinite(x.reshape(len(x), -1)).all(1).tolist()
    raise not_finite(turn, tuple(rank for rank, good in zip(turn.ranks, finite, strict=True) if not good))


def not_finite(turn: Turn, ranks: tuple[int, ...], scheme: Scheme | None = None) -> NonFiniteError:
    """Return the error that says which workers hold a value that is not finite, and if it is a scheme's doing."""
    what = f"the gradient of {turn.unit} holds an infinity or a NaN"
    if scheme is not None:
        what = f"{scheme} makes an infinity or a NaN of the gradient of {turn.unit}"
    return NonFiniteError(f"step {turn.step}: {what} on worker {', '.join(map(str, ranks))}", ranks)


def kept(density: float, elements: int) -> int:
    """Return how many of a unit's entries a density keeps: at least one, and the exact ceiling of the product.

    The decimal that the user wrote counts: 0.07 of 100 is 7, not the 8 that binary rounding would give.
    """
    return max(1, ceil(Fraction(str(density)) * elements))
