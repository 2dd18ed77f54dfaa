"""Phases: where a step's time goes, added up from what a worker did."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..network.critical import FloatArray
from .graph import Resource

WAIT = "wait"
"""The kind of activity in which the compute resource idles until an exchange is done."""
EXCHANGE = "exchange"
"""The kind of activity of the communication stream."""


class Activity(NamedTuple):
    """What a worker did, and when.

    Attributes
    ----------
    worker : int
    resource : {"compute", "codec", "network"}
    kind : str
        The kind of a :class:`gradwire.sim.step.graph.Task`, or :data:`WAIT` or :data:`EXCHANGE`.
    message : int or None
    start_s, seconds : float or array
        Since the step's start; arrays where many steps or clusters are evaluated at once.
    """

    worker: int
    resource: Resource
    kind: str
    message: int | None
    start_s: ArrayLike
    seconds: ArrayLike


class Phases(NamedTuple):
    """Where a step's time goes, in seconds; arrays of one shape.

    All fields between the first and the last add up to the first.

    Attributes
    ----------
    step_s : FloatArray
    forward_s, backward_s, encode_s : FloatArray
    decode_s : FloatArray
        Decoding and the work between rounds.
    optimizer_s : FloatArray
    exposed_communication_s : FloatArray
        How long the compute resource waits for exchanges, and for encoding and decoding on a stream of their own.
    communication_s : FloatArray
        How long the communication stream is busy.
    """

    step_s: FloatArray
    forward_s: FloatArray
    backward_s: FloatArray
    encode_s: FloatArray
    decode_s: FloatArray
    optimizer_s: FloatArray
    exposed_communication_s: FloatArray
    communication_s: FloatArray


def add_up(worker: Iterable[Activity], shape: tuple[int, ...]) -> Phases:
    """Add up one worker's activities, to arrays of some shape; the optimizer ends the step.

    What is encoded and decoded beside the model is not part of the sum: the optimizer's waiting for it is.
    """
    kinds = ("forward", "backward", "encode", "between", "decode", "optimizer", WAIT, EXCHANGE)
    total: dict[str, FloatArray] = {kind: np.zeros(()) for kind in kinds}
    for activity in worker:
        if activity.resource != "codec":
            total[activity.kind] = total[activity.kind] + np.asarray(activity.seconds)
        if activity.kind == "optimizer":
            end_s = np.asarray(activity.start_s) + activity.seconds
    sums = (
        end_s,
        total["forward"],
        total["backward"],
        total["encode"],
        total["between"] + total["decode"],
        total["optimizer"],
        total[WAIT],
        total[EXCHANGE],
    )
    return Phases(*(np.broadcast_to(value, shape) for value in sums))
