"""Trajectory: what a training learnt, step by step, and what its schemes sent; nothing in it depends on time."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compressors.wirelog import Collective, MessageLog, StepLog, Work
from .record import Trace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluations:
    """Measurements of the model after ``steps`` completed steps, each array of shape [E]."""

    steps: NDArray[np.int64]
    validation_loss: Floats
    validation_metric: Floats
    test_loss: Floats
    test_metric: Floats


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One training.

    Attributes
    ----------
    scheme : str
        The scheme's text form.
    train_loss : array, shape [S]
        Mean over workers of the loss of each step's batches, before the step's update. S is the number of steps that
        were begun: fewer than asked for if the training diverged.
    learning_rate : array, shape [S]
    evaluations : Evaluations
        Before the first step, at the cadence that was asked for, and after the last step.
    logs : tuple of StepLog, length S or, after divergence, the number of steps that were exchanged
        What crossed the wire.
    status : str
        ``completed``, or ``diverged at step k: why``.
    gradients : str
        How gradients were computed: ``batched``, or ``looped`` with the reason.
    parameters : int
        Trained values of the model.
    digest : str
        sha256 of the final parameters.
    record : Trace or None
        What convergence theory speaks of, over the steps that were exchanged, if it was recorded.
    """

    scheme: str
    train_loss: Floats
    learning_rate: Floats
    evaluations: Evaluations
    logs: tuple[StepLog, ...]
    status: str
    gradients: str
    parameters: int
    digest: str
    record: Trace | None = None

    @property
    def diverged(self) -> bool:
        """Whether the training ended early because a loss or gradient was not finite."""
        return self.status != "completed"

    def to_json(self) -> str:
        """Write the trajectory as JSON text, exactly; equal steps of the wire log are written once."""
        patterns = list(dict.fromkeys(self.logs))
        index = {pattern: i for i, pattern in enumerate(patterns)}
        data: dict[str, Any] = {
            "scheme": self.scheme,
            "train_loss": self.train_loss.tolist(),
            "learning_rate": self.learning_rate.tolist(),
            "evaluations": {key: value.tolist() for key, value in vars(self.evaluations).items()},
            "log_patterns": [[asdict(message) for message in pattern] for pattern in patterns],
            "logs": [index[log] for log in self.logs],
            "status": self.status,
            "gradients": self.gradients,
            "parameters": self.parameters,
            "digest": self.digest,
            **({} if self.record is None else {"record": self.record.to_dict()}),
        }
        return json.dumps(data, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Trajectory":
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        patterns = [tuple(map(_message, pattern)) for pattern in data["log_patterns"]]
        steps, *measured = (data["evaluations"][key] for key in Evaluations.__dataclass_fields__)
        return cls(
            scheme=data["scheme"],
            train_loss=np.asarray(data["train_loss"], dtype=np.float64),
            learning_rate=np.asarray(data["learning_rate"], dtype=np.float64),
            evaluations=Evaluations(
                np.asarray(steps, dtype=np.int64), *(np.asarray(values, dtype=np.float64) for values in measured)
            ),
            logs=tuple(patterns[i] for i in data["logs"]),
            status=data["status"],
            gradients=data["gradients"],
            parameters=data["parameters"],
            digest=data["digest"],
            record=Trace.from_dict(data["record"]) if "record" in data else None,
        )


def _message(data: dict[str, Any]) -> MessageLog:
    """Rebuild one message's log from its JSON form."""
    work = tuple(Work(w["scheme"], tuple(w["shape"]), w["units"], w["itemsize"]) for w in data["work"])
    collectives = tuple(
        Collective(
            c["operation"],
            c["round"],
            c["dtype"],
            tuple(c["sent_bytes"]),
            tuple(c["peers"]),
            tuple(map(tuple, c.get("chunks", ()))),
        )
        for c in data["collectives"]
    )
    return MessageLog(data["message"], work, collectives)


def check_sum(text: str) -> str:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
