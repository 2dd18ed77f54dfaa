"""The prediction of a published run: its step, played by the simulator on a cluster of few terms."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ...compressors.quantizers.dense import Dense
from ...compressors.spec import parse_scheme
from ...sim.cluster.cluster import Cluster, make_cluster
from ...sim.network.costs import Batch, Costs
from ...sim.step.device import load_device
from ...sim.step.options import StepOptions
from ...sim.step.overhead import Overhead
from ...sim.step.synthetic import Cache
from ...sim.step.timeline import timeline
from .messages import Groups, Seconds, Step, group, packed, step_of, to_neighbours, value_bytes
from .models import tensors, work_of
from .sets import RunSet, Schedule, Terms
from .table import Run

DEVICE = "v100"
"""Prices the optimizer, copies and codecs of all runs; most of them are on it."""

_BARELY = 1 - 1e-9
"""A NIC that is not slower than a port is taken as barely slower, for which rings have a closed form."""


@dataclass(frozen=True)
class Predictor:
    """Predicts runs.

    Attributes
    ----------
    runs : dict of str to Run
        Where the times of steps on their own are found.
    schedules : dict of str to Schedule
    cache, steps : dict
        What units and whole steps put on the wire; they are filled.
    """

    runs: dict[str, Run]
    schedules: dict[str, Schedule]
    cache: Cache = field(default_factory=dict)
    steps: dict[tuple[str, tuple[int, ...], str, int], Step] = field(default_factory=dict)

    def step_s(self, run: Run, of: RunSet, terms: Terms) -> float:
        """Return the predicted time of a run's step.

        Parameters
        ----------
        run : Run
        of : RunSet
            Which it belongs to.
        terms : Terms
            Of the network, fitted to other runs.
        """
        schedule = self.schedules[run.schedule]
        found = [self._step_s(run, of, terms, schedule, run.scheme)]
        if schedule.or_dense:
            found.append(self._step_s(run, of, terms, schedule, "dense"))
        return min(found)

    def alone_s(self, run: Run, of: RunSet) -> float:
        """Return the measured time of a run's step without partners."""
        if not run.alone:
            return sum(part or 0.0 for part in (run.forward_ms, run.backward_ms, run.optimizer_ms)) / 1e3
        alone = self.runs[run.alone]
        return alone.step_s(of.steps_per_epoch) * run.batch / alone.batch

    def _step_s(self, run: Run, of: RunSet, terms: Terms, schedule: Schedule, text: str) -> float:
        scheme, device = parse_scheme(text), load_device(DEVICE)
        work = work_of(run, self.alone_s(run, of), device)
        workers = run.hosts if schedule.per_host else run.workers
        if schedule.sends_nothing(run.hosts):
            return work.forward_s + work.backward_s + work.optimizer_s
        cluster, width = cluster_of(run, schedule, terms), value_bytes(scheme)
        groups = group(schedule, tensors(run.model, work), width, work, message_s(cluster, workers))
        step = self._step(run.model, groups, text, workers)
        if isinstance(scheme, Dense):
            work = packed(work, groups, width, device.memory)
        if schedule.neighbours:
            step = step._replace(log=to_neighbours(step.log, workers))
        overhead = schedule.overhead.get(text.partition("(")[0], Overhead())
        if schedule.everywhere:
            overhead = overhead.model_copy(update={"factor": overhead.factor / run.gpus_per_host})
        parse = lru_cache(parse_scheme)
        played = timeline([step.log], step.ready, work, cluster, overhead, device, schedule.options, parse=parse)
        return float(played.step_s[0])

    def _step(self, model: str, groups: Groups, text: str, workers: int) -> Step:
        """Return what is put on the wire, from memory if it was asked for before."""
        key = model, tuple(len(own) for own in groups), text, workers
        if key not in self.steps:
            self.steps[key] = step_of(groups, parse_scheme(text), workers, self.cache)
        return self.steps[key]


def cluster_of(run: Run, schedule: Schedule, terms: Terms) -> Cluster:
    """Return the cluster on which a run is played.

    Latencies inside hosts are part of the launch.
    """
    link = None if run.link_gbps is None else terms.share * run.link_gbps * 1e9
    rates = [rate for rate in (link, terms.between) if rate is not None]
    inside = None if schedule.per_host else terms.inside
    gpus = 1 if schedule.per_host else run.gpus_per_host
    between = min([*rates, *([] if inside is None else [_BARELY * inside])], default=_BARELY)
    keys = {"bandwidth": f"{between!r} bit/s", "latency": f"{terms.latency!r} s", "launch": f"{terms.launch!r} s"}
    if inside is None or gpus == 1:
        return make_cluster(keys)
    return make_cluster(keys | {"gpus": gpus, "intra": {"bandwidth": f"{inside!r} bit/s", "latency": "0 s"}})


def message_s(cluster: Cluster, workers: int) -> Seconds:
    """Return how long an all-reduce of so many bytes takes, without others beside it."""
    costs = Costs(cluster, workers, StepOptions().algorithms, StepOptions().gathers)
    uniform = costs.check_uniform()
    point = uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s

    def seconds(size_bytes: int) -> float:
        batch = Batch("all-reduce", (), np.full((1, workers), size_bytes, np.int64), ())
        return float(costs.cost(batch).seconds(*point)[0])

    return seconds
