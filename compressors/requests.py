"""Requests: what a protocol may ask to be exchanged in a round."""

from dataclasses import dataclass
from typing import Literal

from .payload import Payload


@dataclass(frozen=True)
class AllReduce:
    """Every worker gets the elementwise sum (or maximum) of all workers' buffers. Reply: payload of one row."""

    payload: Payload
    op: Literal["sum", "max"] = "sum"


@dataclass(frozen=True)
class ReduceScatter:
    """Buffers of ``[W, N * m]``: worker r gets the sum over workers of chunk r. Reply: ``[W, m]``."""

    payload: Payload


@dataclass(frozen=True)
class Gather:
    """Every worker gets every worker's payload, in rank order (an all-gather). Reply: payload of N rows."""

    payload: Payload


@dataclass(frozen=True)
class Broadcast:
    """Every worker gets the root's payload. Reply: payload of one row."""

    payload: Payload
    root: int


@dataclass(frozen=True)
class AllToAll:
    """Buffers of ``[W, N * m]``: chunk r goes to worker r. Reply: ``[W, N * m]``, chunk s came from worker s.

    Where chunks differ in length, a buffer is ragged with W * N rows: row ``w * N + r`` is what local worker w sends to
    worker r, and row ``w * N + s`` of the reply is what worker s has sent to it.
    """

    payload: Payload


@dataclass(frozen=True)
class Permute:
    """Worker r sends its payload to ``to[r]``, or to nobody where that is -1. Reply: W rows, empty where none came."""

    payload: Payload
    to: tuple[int, ...]


Request = AllReduce | ReduceScatter | Gather | Broadcast | AllToAll | Permute
