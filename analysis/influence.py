"""Influence: which of the numbers that go in change the step that comes out, and which do not."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from typing import TypeVar

from pydantic import BaseModel

from ..compressors.errors import InputError
from ..sim.prediction import Inputs, Job, Prediction, predict
from ..sim.step.options import Engine
from ..sim.step.synthetic import Cache

CHANGE = 1.5
"""Each number is made half as large again, and integers rounded."""
MOST_PLAYED = 64
"""Workers up to which a changed number may call for the event engine where the step itself was in closed form."""
TOLERANCE = 1e-12
"""A step that changes by less, relatively, has not changed."""
Given = TypeVar("Given", bound=BaseModel)
_NOT_TIMED = {"price", "source", "description"}


@dataclass(frozen=True)
class Influence:
    """What a number does to the step.

    Attributes
    ----------
    key : str
        As ``--set`` calls it; ``device.*`` are the numbers of the device that ``workload.device`` names.
    value : float
        What was put in, in SI units.
    factor : float
        How many times as large the number was made.
    ratio : float or None
        The step with the changed number, over the step; None if it was not computed, because no such cluster can be
        built, or too much would have to be played.
    """

    key: str
    value: float
    factor: float
    ratio: float | None

    @property
    def has_effect(self) -> bool:
        """Whether the step changes."""
        return self.ratio is not None and abs(self.ratio - 1) > TOLERANCE

    @property
    def elasticity(self) -> float | None:
        """Percent by which the step changes for each percent of the number, over the change that was made."""
        return None if self.ratio is None else log(self.ratio) / log(self.factor)


def influences(prediction: Prediction, cache: Cache | None = None) -> list[Influence]:
    """Change every number that the user or a preset gives, one at a time, and predict the step again.

    Left out are numbers of things (workers, hosts, GPUs), which do not grow by half, and what is 0.

    Parameters
    ----------
    prediction : Prediction
    cache : dict, optional
        As in :func:`gradwire.sim.prediction.predict`.

    Returns
    -------
    list of Influence
        In the order of the experiment's sections. Shares may exceed 1 in the changed step: it is a derivative that is
        asked for, not a cluster.
    """
    cache = Cache() if cache is None else cache
    found = []
    timing = prediction.job.timing.model_copy(update={"engine": _engine(prediction)})
    base = prediction.job.model_copy(update={"timing": timing})
    for key, value, factor, job, inputs in _changed(base, prediction.inputs):
        try:
            ratio = predict(job, inputs, cache).step_s / prediction.step_s
        except InputError:
            ratio = None
        found.append(Influence(key, value, factor, ratio))
    return found


def _engine(prediction: Prediction) -> Engine:
    """Return the engine for changed numbers, which may need another one than the step itself."""
    if prediction.engine == "events":
        return prediction.job.timing.engine
    return "auto" if prediction.job.training.workers <= MOST_PLAYED else "closed-form"


def _changed(job: Job, inputs: Inputs) -> Iterator[tuple[str, float, float, Job, Inputs]]:
    """Yield each number's key, value and change, and what is predicted with it changed."""
    for key in ("batch_size", "bucket", "first_bucket"):
        value = job.batch if key == "batch_size" else getattr(job.training, key)
        changed = round(CHANGE * value)
        training = job.training.model_copy(update={key: changed})
        yield f"training.{key}", value, changed / value, job.model_copy(update={"training": training}), inputs
    for key, value, cluster in _numbers(inputs.cluster):
        yield f"cluster.{key}", value, CHANGE, job, inputs._replace(cluster=cluster)
    for key, value, device in _numbers(inputs.device):
        yield f"device.{key}", value, CHANGE, job, inputs._replace(device=device)
    for key, value, overhead in _numbers(inputs.overhead):
        yield f"overhead.{key}", value, CHANGE, job, inputs._replace(overhead=overhead)
    for key, value, timing in _numbers(job.timing):
        yield f"timing.{key}", value, CHANGE, job.model_copy(update={"timing": timing}), inputs


def _numbers(model: Given) -> Iterator[tuple[str, float, Given]]:
    """Yield the key and value of every float in a model, and the model with this one changed."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        given = name in model.model_fields_set or name == "factor"
        if name in _NOT_TIMED or not given:
            continue
        for key, number, changed in _in_value(value):
            whole = field.alias or name
            yield ".".join(filter(None, (whole, key))), number, model.model_copy(update={name: changed})


def _in_value(value: object) -> Iterator[tuple[str, float, object]]:
    """Yield the floats in a field's value; the key of a plain number is empty."""
    if isinstance(value, float) and value:
        yield "", value, CHANGE * value
    elif isinstance(value, BaseModel):
        yield from _numbers(value)
    elif isinstance(value, tuple):
        for i, entry in enumerate(value):
            for key, number, changed in _in_value(entry):
                yield ".".join(filter(None, (str(i), key))), number, (*value[:i], changed, *value[i + 1 :])
