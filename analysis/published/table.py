"""The table of published runs: one measured run a row, with what a prediction needs and where the figures come from."""

import csv
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from ...compressors.spec import parse_scheme

FOLDER = files("gradwire.analysis.published")

ALONE = "alone"
"""The schedule of a run whose gradients are sent to nobody; its time is what a step computes."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Run(BaseModel):
    """A measured run.

    Attributes
    ----------
    run : str
        Its name, which says whose it is.
    strength : {"A", "B"}
        A: every input of a prediction is published. B: one of them must be fitted.
    set : str
        The set of runs on one network, from one source, that it belongs to.
    model : str
        A listed model, or one of ``tensors.csv``.
    parameters_millions : float
        As the source counts them.
    batch, workers, gpus_per_host : int
        Samples of a worker and step; all workers; those that a host has.
    link_gbps : float or None
        Nominal, of a host's NIC; None on one host.
    added_latency_us : float
        What the authors added to the network's own.
    software, schedule, scheme : str
        What ran; when it sends which messages, a name of ``sets.toml``; what it sends.
    alone : str
        The run that says how long a step computes; empty where this one says so itself.
    forward_ms, backward_ms, optimizer_ms : float or None
        Measured parts of a step, besides what is sent.
    step_ms, epoch_s : float or None
        What was measured: one of the two.
    spread : float
        Published standard deviation over the mean, or the error of reading a figure; 0 if neither is known.
    source, where : str
        Who measured; the place in there.
    unknown : str
        The input that is not published, and for which the run is not counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Annotated[str, Field(min_length=1)]
    strength: Literal["A", "B"]
    set: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]
    parameters_millions: Positive
    batch: Count
    workers: Count
    gpus_per_host: Count
    link_gbps: Positive | None = None
    added_latency_us: Annotated[float, Field(ge=0)] = 0.0
    software: Annotated[str, Field(min_length=1)]
    schedule: Annotated[str, Field(min_length=1)]
    scheme: str
    alone: str = ""
    forward_ms: Positive | None = None
    backward_ms: Positive | None = None
    optimizer_ms: Positive | None = None
    step_ms: Positive | None = None
    epoch_s: Positive | None = None
    spread: Annotated[float, Field(ge=0, lt=1)] = 0.0
    source: Annotated[str, Field(min_length=1)]
    where: Annotated[str, Field(min_length=1)]
    unknown: str = ""

    @field_validator("scheme")
    @classmethod
    def _readable(cls, text: str) -> str:
        return str(parse_scheme(text))

    @model_validator(mode="after")
    def _consistent(self) -> "Run":
        if (self.step_ms is None) == (self.epoch_s is None):
            raise ValueError("a run has either step_ms or epoch_s")
        if (self.hosts > 1) != (self.link_gbps is not None):
            raise ValueError("a run has link_gbps if it has several hosts, and only then")
        if self.workers > self.gpus_per_host and self.workers % self.gpus_per_host:
            raise ValueError("the workers of a run fill their hosts")
        return self

    @property
    def hosts(self) -> int:
        """The number of hosts that have workers."""
        return -(-self.workers // self.gpus_per_host)

    @property
    def compressed(self) -> bool:
        """Whether it sends anything but whole gradients."""
        return not self.scheme.startswith("dense")

    def step_s(self, steps_per_epoch: int = 1) -> float:
        """Return the measured time of a step."""
        if self.step_ms is not None:
            return self.step_ms / 1e3
        assert self.epoch_s is not None
        return self.epoch_s / steps_per_epoch


@lru_cache(maxsize=1)
def read_runs() -> dict[str, Run]:
    """Return all runs by name, in the order of the table."""
    with (FOLDER / "runs.csv").open(encoding="utf-8") as lines:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(lines)]
    return by_name(TypeAdapter(list[Run]).validate_python(rows))


def by_name(runs: Iterable[Run]) -> dict[str, Run]:
    """Return runs by name.

    Raises
    ------
    ValueError
        If two have the same name.
    """
    named: dict[str, Run] = {}
    for run in runs:
        if run.run in named:
            raise ValueError(f"two published runs are called {run.run}")
        named[run.run] = run
    return named
