"""Cases: a scheme whose steps are known, timed anew with some of the inputs larger or smaller."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel

from ...compressors.wirelog import StepLog
from ...sim.cluster import Cluster
from ...sim.network.costs import AUTO, Costs
from ...sim.network.critical import ClosedFormError, FloatArray
from ...sim.prediction import Inputs
from ...sim.step.closed_form import price, step_times
from ...sim.step.graph import OVERHEAD
from ...sim.step.options import StepOptions
from ...sim.step.overhead import Overhead
from ...sim.step.timeline import Plan, plan_steps, timeline
from ...sim.step.workload import Workload

MOST_PLAYED = 64
"""Workers up to which a changed input may call for the event engine where the steps themselves were in closed form."""
Given = TypeVar("Given", bound=BaseModel)


class Point(NamedTuple):
    """By how much the inputs are multiplied.

    Attributes
    ----------
    bandwidth, latency, launch : float
        Of the network between hosts: all bandwidths of NICs and fabric, all latencies, the launch of a collective.
    intra : float
        The bandwidth inside hosts.
    compute : float
        What forward pass, backward pass and optimizer take.
    cost : float
        What encoding and decoding take.
    estimates : float
        What those of them take besides that nobody has measured on the device.
    """

    bandwidth: float = 1.0
    latency: float = 1.0
    launch: float = 1.0
    intra: float = 1.0
    compute: float = 1.0
    cost: float = 1.0
    estimates: float = 1.0


HERE = Point()
KEYS: Mapping[str, str] = {
    "bandwidth": "cluster.bandwidth",
    "latency": "cluster.latency",
    "launch": "cluster.launch",
    "intra": "cluster.intra.bandwidth",
    "compute": "compute times",
    "cost": "overhead.factor",
    "estimates": "overhead.estimate_factor",
}
"""What results call the inputs: where there is one, by the key that ``--set`` takes."""


@dataclass(frozen=True, eq=False)
class Case:
    """A scheme of which the wire log is known, so that only time depends on the inputs.

    Attributes
    ----------
    scheme : str
    uncompressed : bool
    bucket_bytes : int or None
        At which a bucket is closed; None where messages are not buckets.
    runs : tuple of runs, each a tuple of StepLog
        One run a seed; its steps are those whose time counts.
    by_step : bool
        Whether the mean step counts, and not the sum of all.
    ready, workload, inputs, options
        As :func:`gradwire.sim.step.timeline.timeline` takes them.
    """

    scheme: str
    uncompressed: bool
    bucket_bytes: int | None
    runs: tuple[tuple[StepLog, ...], ...]
    by_step: bool
    ready: tuple[int, ...]
    workload: Workload
    inputs: Inputs
    options: StepOptions

    def seconds(self, point: Point = HERE) -> float:
        """Return what counts: the geometric mean of :meth:`each`."""
        return float(np.exp(np.log(self.each(point)).mean()))

    def each(self, point: Point = HERE) -> FloatArray:
        """Return the time that counts of each run, with the inputs multiplied.

        Raises
        ------
        InputError
            If the changed cluster cannot be timed.
        """
        plans = self._plans if point.estimates == 1 else self._planned(point.estimates)
        times = [self._run_s(plan, run, point) for plan, run in zip(plans, self.runs, strict=True)]
        return np.array(times) / ([len(run) for run in self.runs] if self.by_step else 1)

    @property
    def by_events(self) -> bool:
        """Whether every transfer has to be played, which takes long."""
        return any(plan.priced is None for plan in self._plans)

    @cached_property
    def _plans(self) -> tuple[Plan, ...]:
        return self._planned(1.0)

    def _planned(self, estimates: float) -> tuple[Plan, ...]:
        """Return the runs' plans, estimated costs multiplied."""
        cluster, device, overhead = self.inputs
        changed = _estimated(overhead, estimates)
        return tuple(
            plan_steps(run, self.ready, self.workload, changed, device, cluster, self.options) for run in self.runs
        )

    @cached_property
    def _by_numbers(self) -> bool:
        """Whether bandwidth, latency and launch are all there is to the network, so that a plan serves all of them."""
        numbers_only = all(plan.one_point_only() is None for plan in self._plans)
        return numbers_only and AUTO not in self.options.algorithms.values()

    def _run_s(self, plan: Plan, run: tuple[StepLog, ...], point: Point) -> float:
        """Return how long a run takes."""
        if self.options.engine == "events" or plan.priced is None:
            return self._played_s(run, point)
        network = Point(bandwidth=point.bandwidth, latency=point.latency, launch=point.launch, intra=point.intra)
        if network != HERE and (point.intra != 1 or not self._by_numbers):
            try:
                plan, network = self._repriced(plan, network), HERE
            except ClosedFormError:
                return self._played_s(run, point)
        factor = self.inputs.overhead.factor * point.cost
        return _closed_form_s(slower(plan, point.compute), network, factor)

    def _repriced(self, plan: Plan, network: Point) -> Plan:
        """Return a plan whose exchanges are priced on the changed cluster."""
        cluster, options = changed_cluster(self.inputs.cluster, network), self.options
        costs = tuple(Costs(cluster, own.workers, options.algorithms, options.gathers) for own in plan.costs)
        priced = tuple(price(graph, own, options) for graph, own in zip(plan.graphs, costs, strict=True))
        return replace(plan, costs=costs, priced=priced)

    def _played_s(self, run: tuple[StepLog, ...], point: Point) -> float:
        """Time all steps with changed inputs, by the event engine where it has to be."""
        cluster, device, overhead = self.inputs
        options = self.options
        if not self.by_events and _workers(run) > MOST_PLAYED:
            options = options.model_copy(update={"engine": "closed-form"})
        changed = _estimated(overhead, point.estimates)
        times = timeline(
            run,
            self.ready,
            slower_workload(self.workload, point.compute),
            changed_cluster(cluster, point),
            changed.model_copy(update={"factor": changed.factor * point.cost}),
            device,
            options,
        )
        return float(times.end_s[-1])


def _workers(run: tuple[StepLog, ...]) -> int:
    return max((len(c.sent_bytes) for message in run[0] for c in message.collectives), default=1)


def _estimated(overhead: Overhead, factor: float) -> Overhead:
    return overhead.model_copy(update={"estimate_factor": overhead.estimate_factor * factor})


def _closed_form_s(plan: Plan, network: Point, factor: float) -> float:
    """Return the duration of a plan's steps, with the network's three numbers multiplied."""
    assert plan.priced is not None
    total = 0.0
    for i, (graph, priced, costs) in enumerate(zip(plan.graphs, plan.priced, plan.costs, strict=True)):
        uniform = costs.check_uniform()
        numbers = (
            uniform.bandwidth_bps * network.bandwidth,
            uniform.latency_s * network.latency,
            uniform.launch_s * network.launch,
        )
        times = np.bincount(plan.row[plan.graph == i], minlength=len(graph.logs))
        total += float(step_times(graph, priced, *numbers, factor, costs.cluster.shaper).step_s @ times)
    return total


def slower(plan: Plan, factor: float) -> Plan:
    """Return a plan in which the model itself takes ``factor`` times as long."""
    if factor == 1:
        return plan
    graphs = []
    for graph in plan.graphs:
        tasks = (t if t.kind in OVERHEAD else t._replace(seconds=t.seconds * factor) for t in graph.tasks)
        graphs.append(replace(graph, tasks=tuple(tasks)))
    return replace(plan, graphs=tuple(graphs))


def slower_workload(workload: Workload, factor: float) -> Workload:
    """Return a workload that takes ``factor`` times as long."""
    if factor == 1:
        return workload
    layers = (
        replace(layer, forward_s=layer.forward_s * factor, backward_s=layer.backward_s * factor)
        for layer in workload.layers
    )
    return replace(workload, layers=tuple(layers), optimizer_s=workload.optimizer_s * factor)


_BANDWIDTHS = frozenset({"bandwidth", "upload", "download", "core", "uplink"})


def changed_cluster(cluster: Cluster, point: Point) -> Cluster:
    """Return a cluster with its rates and times multiplied; what is outside of hosts apart from what is inside."""
    changed = _multiplied(cluster, _BANDWIDTHS, point.bandwidth)
    if cluster.shaper is not None:
        changed = changed.model_copy(
            update={"shaper": _multiplied(cluster.shaper, frozenset({"rate"}), point.bandwidth)}
        )
    changed = _multiplied(changed, frozenset({"latency"}), point.latency)
    changed = _multiplied(changed, frozenset({"launch"}), point.launch)
    if cluster.intra is not None:
        changed = changed.model_copy(update={"intra": _multiplied(cluster.intra, _BANDWIDTHS, point.intra)})
    return changed


def _multiplied(model: Given, names: frozenset[str], factor: float) -> Given:
    """Return a section with the numbers of these names multiplied, in all that it holds but what is inside of hosts."""
    if factor == 1:
        return model
    return model.model_copy(
        update={
            name: _in_value(value, name in names, names, factor)
            for name, value in model
            if value is not None and name != "intra"
        }
    )


def _in_value(value: Any, named: bool, names: frozenset[str], factor: float) -> Any:
    if isinstance(value, BaseModel):
        return _multiplied(value, names, factor)
    if isinstance(value, tuple):
        return tuple(_in_value(entry, False, names, factor) for entry in value)
    return value * factor if named and isinstance(value, float) else value
