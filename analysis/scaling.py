"""Scaling: how step, throughput, efficiency and cost go with the number of workers."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..compressors.errors import InputError
from ..sim.models import load_model, model_workload
from ..sim.prediction import MOST_WORKERS, Job, Prediction, predict
from ..sim.step.device import load_device
from ..sim.step.synthetic import Cache
from .style import INK, dress, legend, looks, make_logarithmic

SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Point:
    """One scheme on one number of workers.

    Attributes
    ----------
    scheme : str
    workers : int
    batch : int
        Samples of one worker's batch.
    step_s, exposed_communication_s : float
    throughput : float
        Samples a second of all workers.
    speedup : float
        Over one worker that computes alone, uncompressed: a batch as large as each worker's (weak scaling), or the
        whole global batch (strong scaling).
    efficiency : float
        The speed-up over the number of workers.
    step_cost, run_cost : float or None
        Of all workers for a step, and for the run; None without a price, or without a number of steps.
    """

    scheme: str
    workers: int
    batch: int
    step_s: float
    exposed_communication_s: float
    throughput: float
    speedup: float
    efficiency: float
    step_cost: float | None = None
    run_cost: float | None = None


@dataclass(frozen=True)
class Scaling:
    """Points of several schemes.

    Attributes
    ----------
    strong : bool
        Whether the global batch is constant, and not each worker's.
    points : tuple of Point
        By scheme, then by number of workers.
    alone : float
        Samples a second of one worker that computes alone, uncompressed.
    """

    strong: bool
    points: tuple[Point, ...]
    alone: float


def step_cost(step_s: float, workers: int, per_gpu_hour: float) -> float:
    """Return what a step costs where each worker is a GPU that is rented by the hour.

    >>> step_cost(step_s=0.5, workers=16, per_gpu_hour=3.6)
    0.008
    """
    return workers * step_s * per_gpu_hour / SECONDS_AN_HOUR


def read_workers(text: str) -> list[int]:
    """Read numbers of workers: a list, or a range that doubles, from the first to the last number.

    Raises
    ------
    InputError
        If the text is neither, or a number is too large.

    Examples
    --------
    >>> read_workers("2,4,12"), read_workers("2..20"), read_workers("2,4,...,20")
    ([2, 4, 12], [2, 4, 8, 16], [2, 4, 8, 16])
    """
    ends = re.sub(r"^\s*(\d+)\s*,\s*(\d+)\s*,\s*\.\.\.\s*,", _doubling, text, flags=re.ASCII).split("..")
    parts = [part.strip() for part in (ends if len(ends) == 2 else text.split(","))]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--scaling {text!r}: write numbers of workers as 2,4,8 or, doubling, as 2..1024")
    numbers = [int(part) for part in parts]
    if max(numbers) > MOST_WORKERS:
        raise InputError(f"--scaling {text!r}: {max(numbers)} workers; allowed: at most {MOST_WORKERS}")
    if len(ends) == 2:
        first, last = numbers
        if first > last:
            raise InputError(f"--scaling {text!r}: {first} is more than {last}; write the smaller number first")
        return [first << i for i in range((last // first).bit_length())]
    return sorted(set(numbers))


def _doubling(start: re.Match[str]) -> str:
    """Return the short form of a beginning such as "2,4,...,"; one that does not double stays as it is."""
    first, second = map(int, start.groups())
    return f"{first}.." if second == 2 * first else start.group()


def scale(
    jobs: Iterable[Job],
    workers: Sequence[int],
    strong: bool = False,
    per_gpu_hour: float | None = None,
    steps: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Scaling:
    """Predict jobs, which differ in their scheme only, on several numbers of workers.

    Parameters
    ----------
    jobs : iterable of Job
    workers : sequence of int
    strong : bool
        Keep the global batch, which is that of the jobs as they are: their batch times their number of workers.
    per_gpu_hour : float, optional
        The price of a worker.
    steps : int, optional
        Of the run whose cost is asked for.
    progress : callable
        Called after each point.

    Raises
    ------
    InputError
        If a number of workers does not divide the global batch, or as :func:`gradwire.sim.prediction.predict`.
    """
    jobs, cache = list(jobs), Cache()
    if not jobs or not workers:
        raise InputError("scaling needs at least one scheme and one number of workers")
    batches = {n: _batch(jobs[0], n) if strong else jobs[0].batch for n in workers}
    alone = _alone(jobs[0], jobs[0].batch * jobs[0].training.workers if strong else jobs[0].batch)
    points = []
    for job in jobs:
        for n in workers:
            prediction = predict(job.at(n, batches[n]), cache=cache)
            points.append(_point(prediction, alone, per_gpu_hour, steps))
            progress()
    return Scaling(strong, tuple(points), alone)


def _batch(job: Job, workers: int) -> int:
    """Return a worker's part of the global batch."""
    whole = job.batch * job.training.workers
    if whole % workers:
        raise InputError(
            f"scaling to {workers} workers: they do not divide the global batch of {whole} "
            f"({job.batch} x {job.training.workers} workers); allowed: its divisors"
        )
    return whole // workers


def _alone(job: Job, batch: int) -> float:
    """Return the samples a second of one worker alone."""
    device = load_device(job.workload.device)
    work = model_workload(load_model(job.model), device, batch, job.workload.times)
    return batch / (work.forward_s + work.backward_s + work.optimizer_s)


def _point(prediction: Prediction, alone: float, per_gpu_hour: float | None, steps: int | None) -> Point:
    workers = prediction.job.training.workers
    cost = None if per_gpu_hour is None else step_cost(prediction.step_s, workers, per_gpu_hour)
    speedup = prediction.throughput / alone
    return Point(
        scheme=prediction.job.scheme,
        workers=workers,
        batch=prediction.job.batch,
        step_s=prediction.step_s,
        exposed_communication_s=float(prediction.timeline.exposed_communication_s[0]),
        throughput=prediction.throughput,
        speedup=speedup,
        efficiency=speedup / workers,
        step_cost=cost,
        run_cost=None if cost is None or steps is None else steps * cost,
    )


def scaling_figure(scaling: Scaling) -> Figure:
    """Draw throughput and efficiency against the number of workers, a line a scheme, and what would be ideal."""
    figure = Figure(figsize=(10.0, 3.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    kind = "strong scaling" if scaling.strong else "weak scaling"
    dress(left, f"Throughput, {kind}", "workers")
    dress(right, f"Efficiency, {kind}", "workers")
    workers = sorted({point.workers for point in scaling.points})
    ideal = [n * scaling.alone for n in workers]
    dotted = {"color": INK, "linewidth": 1.0, "linestyle": (0, (1, 1.5)), "zorder": 1}
    left.plot(workers, ideal, label="ideal", **dotted)
    right.plot(workers, [1.0] * len(workers), **dotted)
    schemes = list(dict.fromkeys(point.scheme for point in scaling.points))
    for scheme, look in zip(schemes, looks(schemes), strict=True):
        own = sorted((point for point in scaling.points if point.scheme == scheme), key=lambda point: point.workers)
        at = [point.workers for point in own]
        style = {"color": look.colour, "linestyle": look.dashes, "marker": look.marker, "markersize": 5}
        left.plot(at, [point.throughput for point in own], label=scheme, linewidth=1.6, **style)
        right.plot(at, [point.efficiency for point in own], linewidth=1.6, **style)
    _label(left, right, scaling, workers)
    legend(figure, left)
    return figure


def _label(left: Axes, right: Axes, scaling: Scaling, workers: list[int]) -> None:
    """Scale and name the axes."""
    throughputs = [point.throughput for point in scaling.points]
    for axes in (left, right):
        make_logarithmic(axes, "x", workers[0], workers[-1], "{:,.0f}".format)
    make_logarithmic(left, "y", min(throughputs), workers[-1] * scaling.alone, "{:,g}".format)
    left.set_ylabel("samples a second")
    right.set_ylabel("speed-up over workers")
    right.set_ylim(0, 1.05 * max(1.0, *(point.efficiency for point in scaling.points)))
    right.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
