"""Phases of a measured step: what a watch has marked, added up as the simulator's timeline adds up its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from ...compressors.wirelog import Collective, Operation
from .clock import Clock, Mark
from .walls import COMMUNICATION, Segment


class Launch(NamedTuple):
    """What was launched and has landed, as one collective of the wire log.

    Attributes
    ----------
    operation : str
    message, round : int
    bytes : float
        What a worker hands over, the mean over all; of a broadcast, the root.
    seconds : float
    """

    operation: Operation
    message: int
    round: int
    bytes: float
    seconds: float


class Span(NamedTuple):
    """An interval, in seconds since an origin."""

    start: float
    stop: float

    def within(self, start: float, stop: float) -> float:
        """Return how much of it lies in another."""
        return max(0.0, min(self.stop, stop) - max(self.start, start))


@dataclass
class Exchange:
    """A message's exchange: what the watch has marked of it.

    ``operations`` are the launches and landings; of each, ``places`` says which of ``collectives`` it belongs to.
    """

    message: int
    begin: Mark
    operations: list[tuple[Mark, Mark]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)
    end: Mark = None


class Work(NamedTuple):
    """What a message cost besides its collectives, as intervals in order."""

    encode: list[Span]
    between: list[Span]
    decode: list[Span]


class MarkingWatch:
    """Marks what a driver does; ``clear`` before each step.

    Parameters
    ----------
    clock : Clock
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.exchanges: list[Exchange] = []
        self.ready_marks: dict[int, Mark] = {}

    def clear(self) -> None:
        """Forget all marks."""
        self.exchanges, self.ready_marks = [], {}

    def ready(self, message: int) -> None:
        """Mark that a message's gradients are there; the last call counts."""
        self.ready_marks[message] = self._clock.mark()

    def begin(self, message: int) -> None:
        """Mark that encoding begins."""
        self.exchanges.append(Exchange(message, self._clock.mark()))

    @contextmanager
    def launched(self) -> Iterator[None]:
        """Mark launch and landing of what runs within."""
        start = self._clock.mark()
        yield
        if self.exchanges:  # what is exchanged before the first message, such as to compare arguments, is no step's
            self.exchanges[-1].operations.append((start, self._clock.mark()))

    def exchanged(self, collectives: Sequence[Collective]) -> None:
        """Tell the latest operations which collectives they are: in order, those beyond the last the last."""
        current = self.exchanges[-1]
        first = len(current.collectives)
        current.collectives += collectives
        for i in range(len(current.operations) - len(current.places)):
            current.places.append(first + min(i, len(collectives) - 1))

    def end(self, message: int) -> None:
        """Mark that decoding is done."""
        self.exchanges[-1].end = self._clock.mark()


def work_of(exchange: Exchange, clock: Clock, origin: Mark) -> Work:
    """Return when a message was encoded, worked on between rounds, and decoded; in seconds since ``origin``.

    What comes before an operation of round 0 is encoding: the agreement and an exchange of sizes lie within it. What
    comes before an operation of a later round is between rounds, what comes after the last one is decoding. Where
    nothing was exchanged all of it is encoding.
    """
    work = Work([], [], [])
    at = clock.seconds(origin, exchange.begin)
    for (launch, landing), place in zip(exchange.operations, exchange.places, strict=True):
        kind = work.between if exchange.collectives[place].round else work.encode
        kind.append(Span(at, clock.seconds(origin, launch)))
        at = clock.seconds(origin, landing)
    (work.decode if exchange.operations else work.encode).append(Span(at, clock.seconds(origin, exchange.end)))
    return work


def codec_segments(exchange: Exchange, at: Callable[[Mark], float]) -> list[Segment]:
    """Return what a worker did for a message, without gaps; ``at`` tells when a mark was made."""
    found = []
    since = at(exchange.begin)
    for (launch, landing), place in zip(exchange.operations, exchange.places, strict=True):
        kind = "between" if exchange.collectives[place].round else "encode"
        found += [Segment(kind, since, at(launch)), Segment(COMMUNICATION, at(launch), at(landing))]
        since = at(landing)
    found.append(Segment("decode" if exchange.operations else "encode", since, at(exchange.end)))
    return found


def step_segments(marks: "Marks", watch: MarkingWatch, at: Callable[[Mark], float]) -> list[Segment]:
    """Return what a worker did in a step whose messages were exchanged after the backward pass."""
    start, forward, backward, _, stop = map(at, marks)
    found = [Segment("forward", start, forward), Segment("backward", forward, backward)]
    for exchange in watch.exchanges:
        found += codec_segments(exchange, at)
    whole = [found[0]]
    for segment in found[1:]:  # what lies between messages belongs to the later one
        whole.append(segment._replace(start=whole[-1].stop))
    return [*whole, Segment("optimizer", whole[-1].stop, stop)]


def launches_of(exchange: Exchange, clock: Clock) -> list[Launch]:
    """Return a message's collectives with their times."""
    seconds = [0.0] * len(exchange.collectives)
    for (launch, landing), place in zip(exchange.operations, exchange.places, strict=True):
        seconds[place] += clock.seconds(launch, landing)
    return [
        Launch(one.operation, exchange.message, one.round, _handed_over(one), time)
        for one, time in zip(exchange.collectives, seconds, strict=True)
    ]


def _handed_over(collective: Collective) -> float:
    """Return the bytes of a mean worker, or of the only one that hands anything over."""
    if collective.operation == "broadcast":
        return float(max(collective.sent_bytes))
    return sum(collective.sent_bytes) / len(collective.sent_bytes)


def total(spans: Sequence[Span]) -> float:
    """Return the length of intervals together."""
    return sum(span.stop - span.start for span in spans)


class Phases(NamedTuple):
    """Where one worker's step went, in seconds; all but the last two add up to ``step_s``."""

    step_s: float
    forward_s: float
    backward_s: float
    encode_s: float
    decode_s: float
    optimizer_s: float
    exposed_communication_s: float
    communication_s: float
    ready_s: tuple[float, ...]
    launches: tuple[Launch, ...]
    segments: tuple[Segment, ...] = ()


class Marks(NamedTuple):
    """The moments of a step: its start, the ends of the passes and of all exchanges, its end."""

    start: Mark
    forward: Mark
    backward: Mark
    exchanged: Mark
    stop: Mark


def phases(marks: Marks, watch: MarkingWatch, clock: Clock, overlap: bool) -> Phases:
    """Add up a step.

    Parameters
    ----------
    overlap : bool
        Whether messages were exchanged during the backward pass. That has then ended when the last gradients were
        ready, and what was encoded and decoded before is taken off it, as if one processor had done both. Without
        overlap ``marks.backward`` is its end.
    """
    forward, exchanged, stop = (clock.seconds(marks.start, at) for at in (marks.forward, marks.exchanged, marks.stop))
    ready = tuple(clock.seconds(marks.start, watch.ready_marks[message]) for message in sorted(watch.ready_marks))
    work = [work_of(exchange, clock, marks.start) for exchange in watch.exchanges]
    computed = max(ready) if overlap else clock.seconds(marks.start, marks.backward)
    codec = [span for one in work for spans in one for span in spans]
    backward_s = computed - forward - sum(span.within(forward, computed) for span in codec)
    encode_s = sum(total(one.encode) for one in work)
    decode_s = sum(total(one.between) + total(one.decode) for one in work)
    launches = tuple(launch for exchange in watch.exchanges for launch in launches_of(exchange, clock))
    return Phases(
        step_s=stop,
        forward_s=forward,
        backward_s=backward_s,
        encode_s=encode_s,
        decode_s=decode_s,
        optimizer_s=stop - exchanged,
        exposed_communication_s=exchanged - forward - backward_s - encode_s - decode_s,
        communication_s=sum(launch.seconds for launch in launches),
        ready_s=ready,
        launches=launches,
    )
