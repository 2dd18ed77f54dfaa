"""`gradwire ls`: what there is to name in an experiment or a prediction."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from enum import StrEnum
from math import prod
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..analysis.sweep.grid import SWEEPS, load_grid
from ..compressors.base import Scheme
from ..compressors.registry import MEMORIES, SCHEMES, WRAPPERS
from ..sim.cluster import CLUSTERS, load_cluster
from ..sim.experiment import EXPERIMENTS, load_experiment
from ..sim.models import MODELS
from ..sim.models.times import published_steps
from ..sim.step.device import DEVICES
from ..sim.tasks import TASKS

PIPE_WIDTH = 200
"""Characters of a line that nobody sees as wide as a terminal: room for seven columns of whole words."""
EXAMPLE_SHAPE = (1000, 1000)
"""The unit for which error bounds and bits are shown."""


class Kind(StrEnum):
    """What can be listed."""

    SCHEMES = "schemes"
    TASKS = "tasks"
    CLUSTERS = "clusters"
    DEVICES = "devices"
    MODELS = "models"
    EXPERIMENTS = "experiments"
    SWEEPS = "sweeps"


def ls(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List what an experiment or a prediction can name."""
    titles, generator = _LISTS[kind]()
    rows = list(generator)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title, *cells in zip(titles, *rows, strict=True):
        table.add_column(title, min_width=max((len(word) for cell in cells for word in cell.split()), default=0))
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    console.print(table)


Rows = Iterator[tuple[str, ...]]


def _schemes() -> tuple[tuple[str, ...], Rows]:
    title = ("scheme", "what travels", "collective", "error on 1000 x 1000", "bits a value", "state", "source")

    def rows() -> Rows:
        for kind in SCHEMES.values():
            scheme = kind()
            error = _error(scheme)
            bits = 8 * scheme.wire_bytes(EXAMPLE_SHAPE) / (EXAMPLE_SHAPE[0] * EXAMPLE_SHAPE[1])
            parameters = ", ".join(f"{f.name}={f.default}" for f in fields(kind))
            call = f"{scheme.name}({parameters})" if parameters else scheme.name
            yield call, scheme.title, scheme.collective, error, f"{bits:.3g}", scheme.state, scheme.paper
        for memory in MEMORIES.values():
            parameters = ", ".join(f"{f.name}={f.default}" for f in fields(memory))
            call = f"{memory.name}({', '.join(filter(None, ('...', parameters)))})"
            yield call, memory.title, "", "", "", memory.state, memory.paper
        for wrapper in WRAPPERS.values():
            parameters = ", ".join(f"{f.name}={f.default!r}" for f in fields(wrapper))
            yield f"{wrapper.name}({wrapper.around}, {parameters})", wrapper.title, "", "", "", "none", wrapper.paper

    return title, rows()


def _error(scheme: Scheme) -> str:
    """Say how far what is decoded may be from the input."""
    bound, kind = scheme.error_bound(EXAMPLE_SHAPE), "unbiased" if scheme.unbiased else "biased"
    if math.isinf(bound):
        return f"{kind}, no bound"
    if scheme.unbiased:
        return f"{kind}, omega = {bound:.3g}"
    return f"{kind}, delta = {1 - bound:.3g}" if bound <= 1 else f"{kind}, up to {bound:.3g}"


def _tasks() -> tuple[tuple[str, ...], Rows]:
    def rows() -> Rows:
        for name, kind in TASKS.items():
            options = ", ".join(f"{f.name} = {f.default!r}" for f in fields(kind))  # type: ignore[arg-type]
            yield name, (kind.__doc__ or "").splitlines()[0], kind.metric, options

    return ("task", "what is learnt", "metric", "options"), rows()


def _clusters() -> tuple[tuple[str, ...], Rows]:
    def rows() -> Rows:
        for name in CLUSTERS:
            cluster = load_cluster(name)
            text = cluster.model_dump(mode="json")
            sources = "; ".join(source for source in dict.fromkeys(text["source"].values()) if source)
            yield name, cluster.kind, text["bandwidth"], text["latency"], text["launch"], text["description"], sources

    return ("cluster", "kind", "bandwidth", "latency", "launch", "description", "sources"), rows()


def _devices() -> tuple[tuple[str, ...], Rows]:
    def rows() -> Rows:
        for name, device in DEVICES.items():
            text = device.model_dump(mode="json")
            sources = "; ".join(dict.fromkeys(text["source"].values()))
            yield name, text["peak"], f"{device.efficiency:g}", text["memory"], text["kernel_launch"], sources

    return ("device", "peak", "efficiency", "memory", "kernel launch", "sources"), rows()


def _models() -> tuple[tuple[str, ...], Rows]:
    def rows() -> Rows:
        for name, model in MODELS.items():
            elements = sum(prod(shape) for _, shape in model.parameters())
            times = ", ".join(f"{step.device} at {step.batch}" for step in published_steps().get(name, ()))
            yield name, f"{elements:,}", model.sample, str(model.batch), times or "none", model.source

    return ("model", "parameters", "sample", "batch", "published times", "source"), rows()


def _experiments() -> tuple[tuple[str, ...], Rows]:
    def rows() -> Rows:
        for name in EXPERIMENTS:
            experiment = load_experiment(name)
            yield name, experiment.title, ", ".join(experiment.schemes)

    return ("experiment", "title", "schemes"), rows()


def _sweeps() -> tuple[tuple[str, ...], Rows]:
    def rows() -> Rows:
        for name in SWEEPS:
            grid = load_grid(name)
            axes = ", ".join(f"{axis.name} ({len(axis.values)})" for axis in grid.axes)
            yield name, grid.first.title, axes, ", ".join(grid.labels)

    return ("sweep", "title", "axes", "schemes"), rows()


_LISTS: dict[Kind, Callable[[], tuple[tuple[str, ...], Rows]]] = {
    Kind.SCHEMES: _schemes,
    Kind.TASKS: _tasks,
    Kind.CLUSTERS: _clusters,
    Kind.DEVICES: _devices,
    Kind.MODELS: _models,
    Kind.EXPERIMENTS: _experiments,
    Kind.SWEEPS: _sweeps,
}
