"""What a message of so many entries costs to send, as adaptive schemes weigh it; everything in bytes.

A cost model turns the bytes of a payload into the cost of sending it: the payload itself, whole packets, or a line.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .wire import index_bits

FloatArray = NDArray[np.float64]
Operator = Literal["top", "sq", "stochastic"]
Cost = Literal["payload", "packets", "affine", "cluster"]


def payload_bytes(counts: FloatArray, size: int, itemsize: int, operator: Operator) -> FloatArray:
    """Return the bytes of a payload by its number of entries, whole or not, without padding and header.

    Parameters
    ----------
    counts : array of float
        T, numbers of entries.
    size, itemsize : int
        Values of the unit; bytes of a value.
    operator : {"top", "sq", "stochastic"}
        Entries of a position and a value each, or (``sq``) of a position and a sign, with one value for all.
    """
    if operator == "sq":
        return itemsize + counts * (index_bits(size) + 1) / 8
    return counts * (index_bits(size) + 8 * itemsize) / 8


@dataclass(frozen=True)
class CostModel:
    """The cost of sending a payload of P bytes.

    Attributes
    ----------
    kind : {"payload", "packets", "affine"}
        P; fixed + per_packet * ceil(P / packet); fixed + per_packet * P / packet. Not "cluster", which
        :func:`on_cluster` replaces.
    fixed, per_packet : float
        Cost of a message, and of a packet. Only their ratio matters to a choice.
    packet : int
        Payload bytes that a packet holds.
    """

    kind: Cost
    fixed: float
    per_packet: float
    packet: int

    def of(self, payload: FloatArray) -> FloatArray:
        """Return the costs of payloads of so many bytes."""
        if self.kind == "payload":
            return payload
        packets = payload / self.packet
        return self.fixed + self.per_packet * (np.ceil(packets) if self.kind == "packets" else packets)


class Affine(NamedTuple):
    """The parameters of an affine cost, as ``cat(cost=affine, fixed=..., per_packet=..., packet=...)`` takes them."""

    fixed: float
    per_packet: float
    packet: int


def affine_of(latency_s: float, bandwidth_bps: float) -> Affine:
    """Return what a network costs, in bytes: a message's fixed time counts as the bytes that fit into it.

    Parameters
    ----------
    latency_s : float
        The part of a message's time that does not depend on its length: latency, launch, headers.
    bandwidth_bps : float
        Bits a second.
    """
    return Affine(fixed=latency_s * bandwidth_bps / 8, per_packet=1.0, packet=1)


def on_cluster(text: str, line: Affine) -> str:
    """Return a scheme's text in which a line stands for ``cost=cluster``, the cost that a simulated cluster charges."""
    given = ", ".join(f"{key}={value!r}" for key, value in line._asdict().items())
    return text.replace("cost=cluster", f"cost=affine, {given}")
