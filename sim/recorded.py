"""Recorded trainings in a run's dataset: traces as arrays with named dimensions, and back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..compressors.base import Shape
from ..compressors.errors import InputError
from .tasks.base import Task
from .tasks.convex import Constants
from .training.nature import Nature, nature_of
from .training.plan import Training
from .training.record import AT_ITERATES, AT_STEPS, VECTORS, Trace
from .training.train import cut, new_model

PREFIX = "record_"
MEANINGS = {
    "lr": "learning rate",
    "loss": "loss over the training split",
    "gradient2": "squared norm of its gradient",
    "curvature": "largest absolute eigenvalue of its Hessian",
    "curvature_error": "distance within which there surely is one",
    "secant": "change of the gradient over change of the iterate, since both were known",
    "example_noise2": "mean squared distance of an example's gradient from the whole one",
    "own2": "mean squared norm of workers' gradients",
    "mean2": "squared norm of their mean",
    "noise2": "mean squared distance of workers' gradients from the whole one",
    "mean_noise2": "squared distance of their mean from it",
    "spread2": "mean squared distance of workers' gradients from their mean",
    "within2": "noise of a worker's gradient as the halves of its batch show it",
    "applied2": "squared norm of what the optimizer got",
    "input2": "mean squared norm of what was compressed",
    "lost2": "mean squared norm of what compression lost",
    "worst_ratio": "largest share of a unit's squared norm that compression lost",
    "memory2": "mean squared norm of workers' memories",
    "mean_memory2": "squared norm of their mean",
    "gap2": "squared distance of the compressed mean from the mean of the compressed",
    "identity": "relative deviation of the iterate less its memory from plain SGD",
    "moved2": "squared norm of the step",
    "turned2": "squared norm of the change of the whole gradient",
    "own_turned2": "mean squared norm of the change of workers' gradients",
    "sent_bytes": "mean bytes sent by a worker",
    "position": "parameters",
    "memory": "mean of workers' memories",
}


@dataclass(frozen=True, eq=False)
class Record:
    """What a run has recorded.

    Attributes
    ----------
    traces : dict of str to Trace
        By scheme, each as long as it came.
    nature : Nature
    shapes : tuple of Shape
        Of the units.
    """

    traces: dict[str, Trace]
    nature: Nature
    shapes: tuple[Shape, ...]


def add_record(data: xr.Dataset, traces: Sequence[Trace], task: Task, plan: Training) -> None:
    """Put traces into a run's dataset, one for each of its schemes, and what is known of the task.

    What a diverged training did not reach is NaN.
    """
    steps = plan.steps
    data.coords["iterate"] = "iterate", np.arange(steps + 1), {"long_name": "completed steps"}
    for name in (*AT_ITERATES, *AT_STEPS):
        dimension, length = ("iterate", steps + 1) if name in AT_ITERATES else ("step", steps)
        values = np.stack([_padded(getattr(trace, name), length) for trace in traces])
        data[PREFIX + name] = ("scheme", dimension), values, _attributes(name)
    for name in VECTORS:
        rows = [array for trace in traces if (array := getattr(trace, name)) is not None]
        if rows:
            values = np.stack([_padded(row, steps + 1) for row in rows])
            data[PREFIX + name] = ("scheme", "iterate", "parameter"), values, _attributes(name)
    model = new_model(task, plan)
    nature = nature_of(task, model)
    known: dict[str, Any] = {
        "shapes": [unit.shape for message in cut(model, plan).messages for unit in message],
        "examples": nature.examples,
        "rough": nature.rough,
        "alone": nature.alone,
        "nonnegative": nature.nonnegative,
    }
    if (constants := nature.constants) is not None:
        names = ("smoothness", "strong_convexity", "optimum_value", "gradient_noise")
        known["constants"] = {name: getattr(constants, name) for name in names}
        optimum = constants.optimum.numpy()
        data[PREFIX + "optimum"] = "parameter", optimum, {"units": "1", "long_name": "where the loss is least"}
    data.attrs["record"] = json.dumps(known)


def read_record(data: xr.Dataset) -> Record:
    """Read what a run has recorded.

    Raises
    ------
    InputError
        If it has nothing.
    """
    if "record" not in data.attrs:
        raise InputError(
            f"{data.attrs.get('title', 'run')}: nothing was recorded for convergence theory; run it again with "
            "training.record = 'theory'"
        )
    known = json.loads(data.attrs["record"])
    constants = known.get("constants")
    if constants is not None:
        constants = Constants(optimum=torch.from_numpy(data[PREFIX + "optimum"].values.copy()), **constants)
    nature = Nature(
        examples=known["examples"],
        constants=constants,
        rough=None if known["rough"] is None else tuple(known["rough"]),
        alone=known["alone"],
        nonnegative=known["nonnegative"],
    )
    traces = {}
    for scheme in map(str, data["scheme"].values):
        one = data.sel(scheme=scheme)
        steps = int(one["completed_steps"])
        arrays = {name: one[PREFIX + name].values[:steps] for name in AT_STEPS}
        arrays |= {name: one[PREFIX + name].values[: steps + 1] for name in AT_ITERATES}
        arrays |= {name: one[PREFIX + name].values[: steps + 1] for name in VECTORS if PREFIX + name in one}
        traces[scheme] = Trace(**arrays)
    return Record(traces, nature, tuple(tuple(shape) for shape in known["shapes"]))


def _attributes(name: str) -> dict[str, str]:
    return {"units": "byte" if name == "sent_bytes" else "1", "long_name": MEANINGS[name]}


def _padded(values: np.ndarray[Any, np.dtype[np.float64]], length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Fill up with NaN at the end of the first dimension."""
    rest = np.full((length - len(values), *values.shape[1:]), np.nan)
    return np.concatenate([values, rest])
