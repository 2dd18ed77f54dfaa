"""Schedules: the scheme that runs follows from the optimizer step, as in a warm-up of the density."""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Hashable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from math import inf
from typing import Any, Literal, get_type_hints

from torch import Tensor
from torch.optim import Optimizer

from .base import (
    Codec,
    Memory,
    Outcome,
    Passes,
    Protocol,
    Rounds,
    Scheme,
    SchemeError,
    Shape,
    State,
    Turn,
    Wrapper,
    check_range,
    text_form,
)
from .compose import Composition
from .decoded import Decoded
from .drivers import codec_rounds
from .payload import Payload


class Schedule(Wrapper):
    """What says which scheme runs at which step; steps count from the start of the training."""

    @abstractmethod
    def pick(self, schemes: tuple[Scheme, ...], step: float) -> Scheme:
        """Return the scheme that runs at a step; ``inf`` gives the last one."""

    @abstractmethod
    def slot(self, step: float) -> int:
        """Return which of the schemes' states is in use at a step."""

    @abstractmethod
    def check(self, schemes: tuple[Scheme, ...]) -> None:
        """Raise :class:`SchemeError` if these schemes cannot be scheduled so."""

    def wrap(self, schemes: tuple[Scheme, ...]) -> Scheme:
        for scheme in schemes:
            if any(isinstance(part, Memory) for part in scheme.parts()):
                raise SchemeError(f"{self.name}: write the memory of {scheme} around {self.name}(...), not inside")
            if not isinstance(scheme, Codec | Protocol):
                raise SchemeError(f"{self.name}: {scheme} chooses by layer; write {self.name} inside it")
        self.check(schemes)
        if len({scheme.law for scheme in schemes}) > 1:
            raise SchemeError(f"{text_form(self, *schemes)}: these schemes do not leave the same kind of mean")
        codecs = [scheme for scheme in schemes if isinstance(scheme, Codec)]
        if len(codecs) == len(schemes) and len({codec.combine for codec in codecs}) == 1:
            return ScheduledCodec(self, schemes)
        return ScheduledProtocol(self, schemes)


@dataclass(frozen=True)
class Warmup(Schedule):
    """Move one parameter of a scheme exponentially from a start to the scheme's own value.

    Parameters
    ----------
    start : float
        The parameter's value at step 0.
    steps : int
        After so many steps the scheme runs as it is written.
    key : str
        The parameter: a positive number, rounded where the scheme wants whole ones. In ``topk | qsgd`` the sparsifier's
        parameter of this name, or else the quantizer's.

    Notes
    -----
    The value of step t is start^(1 - t / steps) end^(t / steps). Lin et al. lower the density over four epochs,
    25 %, 6.25 %, 1.5625 %, 0.4 %, 0.1 %, which are points of this curve.

    References
    ----------
    .. [1] Lin, Han, Mao, Wang, Dally. *Deep Gradient Compression*, ICLR 2018, section 3.3,
       https://arxiv.org/abs/1712.01887
    """

    start: float = 0.25
    steps: int = 400
    key: str = "density"

    name = "warmup"
    title = "a parameter moves exponentially from a start to the scheme's own value"
    paper = "Lin et al. 2018, arXiv 1712.01887"
    around = "scheme"

    def __post_init__(self) -> None:
        check_range(self, "start", "above 0", self.start > 0)
        check_range(self, "steps", "at least 1", self.steps >= 1)

    def check(self, schemes: tuple[Scheme, ...]) -> None:
        if len(schemes) != 1:
            raise SchemeError(f"{self.name} goes around one scheme, as in {self.name}(topk(density=0.001))")
        owner = _owner(schemes[0], self.key)
        end = None if owner is None else getattr(owner, self.key)
        if not isinstance(end, int | float) or isinstance(end, bool) or end <= 0:
            raise SchemeError(f"{self.name}: {schemes[0]} has no parameter {self.key!r} that is a positive number")
        if owner is not None and owner.state != "none" and self.key != "density":
            raise SchemeError(f"{self.name}: {owner} remembers {owner.state}, so its {self.key} must stay what it is")
        self.pick(schemes, 0)

    def pick(self, schemes: tuple[Scheme, ...], step: float) -> Scheme:
        (scheme,) = schemes
        if step >= self.steps:
            return scheme
        end = getattr(_owner(scheme, self.key), self.key)
        return _changed(scheme, self.key, self.start * (end / self.start) ** (step / self.steps))

    def slot(self, step: float) -> int:
        return 0


@dataclass(frozen=True)
class Phases(Schedule):
    """Run one scheme after the other.

    Parameters
    ----------
    at : int or tuple of int
        The first step of the second scheme, of the third, and so on, ascending.
    """

    at: tuple[int, ...] = ()

    name = "phases"
    title = "one scheme after the other"
    paper = "none"
    around = "scheme, ..."

    def check(self, schemes: tuple[Scheme, ...]) -> None:
        starts = (0, *self.at)
        if len(schemes) != len(starts) or any(a >= b for a, b in pairwise(starts)):
            raise SchemeError(
                f"phases: {len(schemes)} schemes need {len(schemes) - 1} ascending steps above 0 at which the later "
                f"ones begin, but at = {self.at}; write phases(dense, topk(density=0.01), at=100)"
            )

    def pick(self, schemes: tuple[Scheme, ...], step: float) -> Scheme:
        return schemes[self.slot(step)]

    def slot(self, step: float) -> int:
        return bisect_right(self.at, step)


def _owner(scheme: Scheme, key: str) -> Scheme | None:
    """Return the part of a scheme that has a parameter."""
    parts = (scheme.sparsifier, scheme.quantizer) if isinstance(scheme, Composition) else (scheme,)
    return next((part for part in parts if key in (f.name for f in fields(part))), None)


def _changed(scheme: Scheme, key: str, value: float) -> Scheme:
    """Return a scheme with another value of a parameter, which it checks."""
    owner = _owner(scheme, key)
    assert owner is not None
    number = round(value) if get_type_hints(type(owner))[key] is int else value
    if not isinstance(scheme, Composition):
        return replace(scheme, **{key: number})
    part: dict[str, Any] = {"sparsifier" if owner is scheme.sparsifier else "quantizer": _changed(owner, key, value)}
    return replace(scheme, **part)


# ------------------------------------------------------------------------------------------------- scheduled schemes


@dataclass(frozen=True)
class _Scheduled(Scheme):
    """What both kinds of scheduled schemes share; formulas without a step tell the last scheme's."""

    schedule: Schedule
    schemes: tuple[Scheme, ...]

    name = "scheduled"
    title = "schemes that follow each other"
    paper = "of its parts"

    @property
    def final(self) -> Scheme:
        """The scheme that runs in the end."""
        return self.schedule.pick(self.schemes, inf)

    @property
    def collective(self) -> str:  # type: ignore[override]
        """The last scheme's collective operations, as shown in tables."""
        return self.final.collective

    @property
    def unbiased(self) -> bool:
        return all(scheme.unbiased for scheme in self.ever())

    @property
    def law(self) -> Literal["mean of sent", "estimate", "vote"]:
        return self.final.law

    @property
    def granularity(self) -> frozenset[str]:
        return frozenset.intersection(*(scheme.granularity for scheme in self.schemes))

    @property
    def selects(self) -> bool:
        return all(scheme.selects for scheme in self.ever())

    @property
    def varying(self) -> bool:
        return any(scheme.varying for scheme in self.ever())

    @property
    def homogeneous(self) -> bool:
        return all(scheme.homogeneous for scheme in self.ever())

    def for_unit(self, name: str, shape: Shape) -> Scheme:
        return replace(self, schemes=tuple(scheme.for_unit(name, shape) for scheme in self.schemes))

    def at(self, turn: Turn) -> Scheme:
        return self.schedule.pick(self.schemes, turn.step).at(turn)

    def ever(self) -> tuple[Scheme, ...]:
        starts = (self.schedule.pick((scheme,), 0) if len(self.schemes) == 1 else scheme for scheme in self.schemes)
        found = [one for scheme in (*starts, self.final) for one in scheme.ever()]
        return tuple(dict.fromkeys(found))

    def stage(self, step: int) -> Hashable:
        now = self.schedule.pick(self.schemes, step)
        return str(now), now.stage(step)

    def check_optimizer(self, optimizer: Optimizer) -> None:
        for scheme in self.ever():
            scheme.check_optimizer(optimizer)

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        """Return the states of all schemes.

        Raises
        ------
        SchemeError
            If a scheme cannot take the unit.
        """
        state = State()
        for slot, scheme in enumerate(self.schemes):
            _put(state, slot, scheme.init(shape, workers, like))
        return state

    def error_bound(self, shape: Shape) -> float:
        return self.final.error_bound(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return self.final.wire_bytes(shape, itemsize)

    def passes(self, shape: Shape) -> Passes:
        return self.final.passes(shape)

    def parts(self) -> tuple[Scheme | Memory, ...]:
        return self.final.parts()

    def shaped_parts(self, shape: Shape) -> tuple[tuple[Scheme | Memory, Shape], ...]:
        return self.final.shaped_parts(shape)

    def __str__(self) -> str:
        return text_form(self.schedule, *self.schemes)


@dataclass(frozen=True)
class ScheduledCodec(_Scheduled, Codec):
    """Codecs that follow each other, all of which sum payloads or all of which gather them."""

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return self._codec(inf).combine

    def _codec(self, step: float) -> Codec:
        codec = self.schedule.pick(self.schemes, step)
        assert isinstance(codec, Codec)
        return codec

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        slot = self.schedule.slot(turn.step)
        payload, sent, own = self._codec(turn.step).encode(x, _take(state, slot), turn)
        return payload, sent, _put(state, slot, own)

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return self._codec(turn.step).decode(payload, shape, turn)

    def receive(self, mean: Tensor, state: State, turn: Turn) -> tuple[Tensor, State]:
        slot = self.schedule.slot(turn.step)
        mean, own = self._codec(turn.step).receive(mean, _take(state, slot), turn)
        return mean, _put(state, slot, own)


@dataclass(frozen=True)
class ScheduledProtocol(_Scheduled, Protocol):
    """Schemes of several kinds that follow each other."""

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        slot = self.schedule.slot(turn.step)
        scheme = self.schedule.pick(self.schemes, turn.step)
        if isinstance(scheme, Codec):
            mean, sent, own = yield from codec_rounds(scheme, x, _take(state, slot), turn)
        else:
            assert isinstance(scheme, Protocol)
            mean, sent, own = yield from scheme.rounds(x, _take(state, slot), turn)
        return Outcome(mean, sent, _put(state, slot, own))


# ----------------------------------------------------------------------------------------------- the schemes' states


def _put(state: State, slot: int | str, own: State) -> State:
    """Store a scheme's state under its slot, level by level, and return the whole."""
    for name in ("elements", "rows", "shared"):
        whole, part = getattr(state, name), getattr(own, name)
        for key in [key for key in whole if key.startswith(f"{slot}: ")]:
            del whole[key]
        whole.update({f"{slot}: {key}": value for key, value in part.items()})
    if own.inner is not None:
        state.inner = _put(state.inner or State(), slot, own.inner)
    return state


def _take(state: State, slot: int | str) -> State:
    """Return the state stored under a slot."""
    prefix = f"{slot}: "

    def part(whole: dict[str, Any]) -> dict[str, Any]:
        return {key.removeprefix(prefix): value for key, value in whole.items() if key.startswith(prefix)}

    inner = None if state.inner is None else _take(state.inner, slot)
    return State(part(state.elements), part(state.rows), part(state.shared), inner)
