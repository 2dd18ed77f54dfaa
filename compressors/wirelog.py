"""The wire log: which collectives crossed the network, with how many bytes from whom, and what work lay between.

It is all that the network simulator sees of a compressor, and it is the same whichever driver wrote it.
"""

from dataclasses import dataclass
from typing import Literal

Operation = Literal["all-reduce", "reduce-scatter", "all-gather", "broadcast", "all-to-all", "permute"]


@dataclass(frozen=True)
class Collective:
    """One collective operation as a backend would launch it.

    Attributes
    ----------
    operation : str
    round : int
        The round of its message, from 0. Several collectives of a round (one for each dtype of an all-reduce, an
        exchange of sizes before a gather) follow each other in the order of the log.
    dtype : str
        Of what a reduction sums; ``bytes`` where nothing is summed.
    sent_bytes : tuple of int
        What each of the N workers hands over. For a broadcast only the root's entry is not 0. An all-to-all of equal
        chunks includes the one that a worker keeps; with ``chunks``, it is left out.
    peers : tuple of int
        Permute: whom each worker sends to, or -1. Broadcast: the root alone. Otherwise empty.
    chunks : tuple of tuple of int
        All-to-all of chunks that differ in length: the bytes from each worker to each, 0 on the diagonal; its rows sum
        to ``sent_bytes``. Otherwise empty.
    """

    operation: Operation
    round: int
    dtype: str
    sent_bytes: tuple[int, ...]
    peers: tuple[int, ...] = ()
    chunks: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Work:
    """Units of a message that one scheme encoded and decoded.

    Attributes
    ----------
    scheme : str
        Its text form.
    shape : tuple of int
        The unit's shape.
    units : int
        How many units of this shape.
    itemsize : int
        Bytes of one of their values while it is worked on.
    """

    scheme: str
    shape: tuple[int, ...]
    units: int
    itemsize: int = 4


@dataclass(frozen=True)
class MessageLog:
    """One message of one step: its units were encoded, its collectives ran round by round, its units were decoded.

    Attributes
    ----------
    message : int
        Index within the step, in the order in which messages become ready.
    work : tuple of Work
        What is encoded before round 0, worked on between rounds and decoded after the last one.
    collectives : tuple of Collective
        In order; empty where nothing had to be sent.
    """

    message: int
    work: tuple[Work, ...]
    collectives: tuple[Collective, ...]

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return 1 + max((collective.round for collective in self.collectives), default=-1)


StepLog = tuple[MessageLog, ...]
"""The messages of one step, in order."""
