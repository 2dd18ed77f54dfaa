"""Predictions as people and programs read them: tables, lines and plain data."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..sim.prediction import Algorithm, LinkUse, Prediction
from .comparison import PHASES
from .formatting import format_bytes, format_percent, format_ratio, format_seconds, significant
from .influence import CHANGE, Influence
from .scaling import Point, Scaling, step_cost

_BUSIEST = 3
"""So many of the busiest links are named."""
_AMPLE = Console(width=1000)  # measures what a table needs, whatever the real console has
_BRIEF = {
    "compute": ("forward_s", "backward_s", "optimizer_s"),
    "encode +decode": ("encode_s", "decode_s"),
    "exposed comm.": ("exposed_communication_s",),
}
_LEAST_SHOWN = 5e-4
"""Changes of the step by less than this share read as about 0."""


class Price(NamedTuple):
    """What a GPU costs by the hour, in which currency, and of how many steps a run's cost is asked for."""

    per_gpu_hour: float
    currency: str
    steps: int | None

    def text(self, amount: float) -> str:
        """Write an amount."""
        return f"{significant(amount)} {self.currency}".strip()


def heading(prediction: Prediction) -> str:
    """Return one line on what is predicted."""
    job = prediction.job
    workers = f"{job.training.workers} worker{'s' * (job.training.workers > 1)}"
    return f"{job.model}, batch {job.batch} a worker, {workers} on {job.cluster.label}, {job.workload.device}"


def phases_table(predictions: Sequence[Prediction], width: int) -> Table:
    """Return a row a scheme: what the step consists of, and what it achieves.

    Where ``width`` columns of text are too few, the model's phases are added up, and so are those of compression.
    """
    whole = _phases_table(predictions, {name: (variable,) for name, variable in PHASES.items()})
    if _AMPLE.measure(whole).maximum <= width:
        return whole
    return _phases_table(predictions, _BRIEF)


def _phases_table(predictions: Sequence[Prediction], phases: dict[str, tuple[str, ...]]) -> Table:
    titles = ["bytes\na step", *(name.replace(" ", "\n") for name in phases), "step", "samples\n/s"]
    table = _table([*titles, "speed-\nup", "effi-\nciency"])
    for one in predictions:
        seconds = (sum(float(getattr(one.timeline, name)[0]) for name in names) for names in phases.values())
        sizes = format_bytes(sum(one.sent_bytes)), *map(format_seconds, seconds), format_seconds(one.step_s)
        rates = significant(one.throughput), format_ratio(one.speedup), format_percent(one.efficiency)
        table.add_row(one.job.scheme, *sizes, *rates)
    return table


def scaling_table(scaling: Scaling, price: Price | None) -> Table:
    """Return a row for each scheme and number of workers; without a price, no costs."""
    titles = ["workers", "batch a\nworker", "step", "exposed\ncomm.", "samples\n/s", "speed-\nup", "effi-\nciency"]
    costs: dict[str, Callable[[Point], float | None]] = {}
    if price is not None:
        costs[f"{price.currency or 'cost'}\na step"] = lambda point: point.step_cost
    if price is not None and price.steps is not None:
        costs[f"{price.currency or 'cost'} of\n{price.steps:,} steps"] = lambda point: point.run_cost
    table = _table([*titles, *costs])
    before = ""
    for point in scaling.points:
        if before not in ("", point.scheme):
            table.add_section()
        table.add_row(
            point.scheme if point.scheme != before else "",
            f"{point.workers:,}",
            f"{point.batch:,}",
            format_seconds(point.step_s),
            format_seconds(point.exposed_communication_s),
            significant(point.throughput),
            format_ratio(point.speedup),
            format_percent(point.efficiency),
            *(significant(cost(point)) for cost in costs.values()),
        )
        before = point.scheme
    return table


def _table(titles: Iterable[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("\nscheme", overflow="fold", min_width=10)
    for title in titles:
        table.add_column(Text(title if "\n" in title else f"\n{title}"), justify="right", no_wrap=True)
    return table


def facts(prediction: Prediction, influences: Sequence[Influence], price: Price | None) -> Iterator[tuple[str, str]]:
    """Yield what stands behind a prediction: a short name for it, and a sentence without its stop."""
    yield "engine", f"{prediction.engine}: {prediction.timeline.why}"
    if prediction.algorithms:
        yield "algorithms", "; ".join(_algorithms(prediction.algorithms))
    yield "compression costs", prediction.cost_source
    if prediction.timeline.extrapolated:
        yield "extrapolated", "; ".join(prediction.timeline.extrapolated)
    yield "busiest links", _links(prediction)
    if price is not None:
        yield "cost", _cost(prediction, price)
    if influences:
        computed = [(i, i.ratio) for i in influences if i.ratio is not None]
        known = sorted((pair for pair in computed if pair[0].has_effect), key=lambda pair: -abs(pair[1] - 1))
        effects = ", ".join(f"{i.key} {_change(ratio)}{_rounded(i)}" for i, ratio in known)
        yield "step with 50 % more of", effects or "any input: unchanged"
        yield "without effect", ", ".join(i.key for i, _ in computed if not i.has_effect) or "none"
        if len(computed) < len(influences):
            yield "not computed", ", ".join(i.key for i in influences if i.ratio is None)


def _algorithms(algorithms: Sequence[Algorithm]) -> Iterator[str]:
    """Yield a text for each operation and algorithm, with the reason for the largest of its collectives."""
    groups: dict[tuple[str, str], list[Algorithm]] = {}
    for one in algorithms:
        groups.setdefault((one.operation, one.name), []).append(one)
    for (operation, name), members in groups.items():
        largest = max(members, key=lambda one: one.size_bytes)
        yield f"{operation}: {name}" + (f" ({largest.why})" if largest.why else "")


def _links(prediction: Prediction) -> str:
    """Say which links carry payload for how much of the step."""
    if not prediction.links:
        return "no link carries anything"
    if prediction.engine != "events":
        return "; ".join(f"{link.name}: {_share(link)}" for link in prediction.links) + " of the step"
    busiest = [link for link in prediction.links if _share(link) == _share(prediction.links[0])]
    more = len(busiest) - _BUSIEST
    names = ", ".join(link.name for link in busiest[:_BUSIEST]) + (f" and {more} more" if more > 0 else "")
    return f"{names}: {_share(busiest[0])} of the step"


def _share(link: LinkUse) -> str:
    return "at most " * link.at_most + format_percent(link.share)


def _cost(prediction: Prediction, price: Price) -> str:
    """Say what the step costs."""
    cost = step_cost(prediction.step_s, prediction.job.training.workers, price.per_gpu_hour)
    run = "" if price.steps is None else f", {price.text(price.steps * cost)} for {price.steps:,} steps"
    return f"{price.text(cost)} a step{run}, at {price.text(price.per_gpu_hour)} a GPU-hour"


def _change(ratio: float) -> str:
    change = 100 * (ratio - 1)
    return f"{change:+.1f} %" if abs(ratio - 1) >= _LEAST_SHOWN else "about 0"


def _rounded(influence: Influence) -> str:
    """Say by how much an integer was changed where that is not by half."""
    more = format_percent(influence.factor - 1)
    return "" if more == format_percent(CHANGE - 1) else f" (with {more} more)"


def prediction_data(prediction: Prediction, influences: Sequence[Influence], price: Price | None) -> dict[str, Any]:
    """Return a prediction as plain data, ready for ``json.dumps``; durations in seconds."""
    times = prediction.timeline
    cost = None
    if price is not None:
        cost = step_cost(prediction.step_s, prediction.job.training.workers, price.per_gpu_hour)
    return {
        "job": prediction.job.model_dump(mode="json", by_alias=True, exclude_none=True),
        "scheme": prediction.job.scheme,
        "workers": prediction.job.training.workers,
        "batch": prediction.job.batch,
        "step_s": prediction.step_s,
        "alone_s": prediction.alone_s,
        **{name: float(getattr(times, name)[0]) for name in (*PHASES.values(), "communication_s")},
        "sent_bytes": list(prediction.sent_bytes),
        "throughput": prediction.throughput,
        "efficiency": prediction.efficiency,
        "speedup": prediction.speedup,
        "engine": prediction.engine,
        "why": times.why,
        "workload_source": prediction.workload.source,
        "cost_source": prediction.cost_source,
        "algorithms": [one._asdict() for one in prediction.algorithms],
        "links": [one._asdict() for one in prediction.links],
        "step_cost": cost,
        "influences": [asdict(one) | {"elasticity": one.elasticity} for one in influences],
    }


def scaling_data(scaling: Scaling) -> dict[str, Any]:
    """Return a scaling as plain data, ready for ``json.dumps``."""
    return asdict(scaling)
