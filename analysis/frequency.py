"""How often compression pays: steps predicted over a grid of models, workers and networks, with and without it."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..compressors.errors import InputError
from ..sim.cluster import Cluster
from ..sim.models import load_model
from ..sim.network.costs import Costs
from ..sim.network.critical import ClosedFormError
from ..sim.prediction import Inputs, Job, Prediction, make_job, predict
from ..sim.step.closed_form import price, step_times
from ..sim.step.device import load_device
from ..sim.step.phases import Phases
from ..sim.step.synthetic import Cache

HOSTS: Mapping[str, Any] = {"preset": "aws-p3-16xlarge", "gpus": 4}
"""Hosts of four V100 with NVLink, whose NIC has the bandwidth that is asked for."""
BUCKETS = ("1 MiB", "5 MiB", "25 MiB", "100 MiB")
"""Sizes of buckets, of which every scheme, compressed or not, gets the one that is best for it."""
UNCOMPRESSED = ("dense(dtype=fp32)", "dense(dtype=bf16)")
STUDIED = (
    "ef(powersgd(rank=4))",
    "ef(powersgd(rank=8))",
    "ef(powersgd(rank=16))",
    "ef(topk(density=0.01))",
    "ef(topk(density=0.1))",
    "ef(topk(density=0.2))",
    "signsgd",
)
"""What Agarwal et al. measured in *On the Utility of Gradient Compression in Distributed Training Systems*, 2022."""


class Step(NamedTuple):
    """A scheme's shortest step over the sizes of buckets, and what it consists of.

    ``compute_s`` is the model's own: forward, backward, optimizer; ``codec_s`` encoding and decoding; ``exposed_s``
    communication that nothing hides.
    """

    step_s: float
    compute_s: float
    codec_s: float
    exposed_s: float
    bucket: str


@dataclass(frozen=True)
class Setup:
    """One scheme on one network for one model.

    Attributes
    ----------
    model : str
    batch : int
        Samples of one worker's batch.
    workers : int
    bandwidth : str
        Of a host's NIC.
    scheme : str
    cost : float
        The factor on the cost of encoding and decoding.
    step : Step
    uncompressed : mapping of str to Step
        Those that it is compared with, by scheme, at a factor of 1.
    """

    model: str
    batch: int
    workers: int
    bandwidth: str
    scheme: str
    cost: float
    step: Step
    uncompressed: Mapping[str, Step]

    @property
    def most(self) -> float:
        """The gain over the best uncompressed step if neither compression nor communication took any time."""
        best = min(self.uncompressed.values(), key=lambda step: step.step_s)
        return best.step_s / best.compute_s - 1

    def gain(self, baselines: Sequence[str] = UNCOMPRESSED) -> float:
        """Return by which share the step is sooner than the best uncompressed one; negative if it is later."""
        return min(self.uncompressed[name].step_s for name in baselines) / self.step.step_s - 1


def setups(
    models: Sequence[str],
    workers: Sequence[int],
    bandwidths: Sequence[str],
    schemes: Sequence[str] = STUDIED,
    costs: Sequence[float] = (1.0,),
    batch_factor: int = 1,
    hosts: Mapping[str, Any] = HOSTS,
    cache: Cache | None = None,
) -> list[Setup]:
    """Predict a step of every scheme, compressed and not, at every point of a grid, in closed form.

    Parameters
    ----------
    models : sequence of str
        Listed models.
    workers : sequence of int
    bandwidths : sequence of str
        Of a host's NIC, as in ``"10 Gbit/s"``.
    schemes : sequence of str
        Compressed ones.
    costs : sequence of float
        Factors on the cost of compression; 1 must be one of them, at which uncompressed schemes are charged.
    batch_factor : int
        A worker's batch, as a multiple of the model's customary one.
    hosts : mapping
        The cluster but for its bandwidth, as in an experiment's section ``cluster``.
    cache : dict, optional
        Filled, and used, by calls for the same schemes, of what they put on the wire.

    Returns
    -------
    list of Setup
        By model, workers, bandwidth, scheme and cost.

    Raises
    ------
    InputError
        If 1 is not among the factors, or as :func:`gradwire.sim.prediction.predict`.
    """
    if 1.0 not in costs:
        raise InputError(f"costs = {list(costs)}: 1 must be one of them, for uncompressed schemes are charged at it")
    names = (*UNCOMPRESSED, *schemes)
    found = []
    kept: Cache = {} if cache is None else cache
    for model in models:
        batch = batch_factor * load_model(model).batch
        jobs = {name: _jobs({"model": model, "scheme": name}, batch, hosts, bandwidths) for name in names}
        for n in workers:
            steps = {name: _steps(jobs[name], n, costs, kept) for name in names}
            for i, bandwidth in enumerate(bandwidths):
                dense = {name: steps[name][i, costs.index(1.0)] for name in UNCOMPRESSED}
                found += [
                    Setup(model, batch, n, bandwidth, name, cost, steps[name][i, j], dense)
                    for name in schemes
                    for j, cost in enumerate(costs)
                ]
    return found


def how_often(
    found: Iterable[Setup],
    by: Callable[[Setup], Hashable],
    more_than: Sequence[float] = (0.02, 0.1),
    baselines: Sequence[str] = UNCOMPRESSED,
) -> dict[Hashable, tuple[int, ...]]:
    """Count set-ups, and those that gain more than some shares, by group.

    Parameters
    ----------
    found : iterable of Setup
    by : callable
        Returns a set-up's group.
    more_than : sequence of float
        Shares, as :meth:`Setup.gain` returns them.
    baselines : sequence of str
        The uncompressed schemes that count.

    Returns
    -------
    dict of group to tuple of int
        How many there are, and how many gain more than each share.
    """
    counts: dict[Hashable, list[int]] = {}
    for setup in found:
        row = counts.setdefault(by(setup), [0] * (1 + len(more_than)))
        gain = setup.gain(baselines)
        for i, counted in enumerate((True, *(gain > least for least in more_than))):
            row[i] += counted
    return {group: tuple(row) for group, row in counts.items()}


def _jobs(what: dict[str, Any], batch: int, hosts: Mapping[str, Any], bandwidths: Sequence[str]) -> list[list[Job]]:
    """Return a job for each network, by size of buckets."""
    networks = [{**hosts, "bandwidth": bandwidth} for bandwidth in bandwidths]
    return [
        [
            make_job(
                {
                    **what,
                    "cluster": network,
                    "training": {"batch_size": batch, "bucket": bucket},
                    "timing": {"engine": "closed-form"},
                }
            )
            for network in networks
        ]
        for bucket in BUCKETS
    ]


def _steps(
    jobs: Sequence[Sequence[Job]], workers: int, costs: Sequence[float], cache: Cache
) -> dict[tuple[int, int], Step]:
    """Return the shortest step over the sizes of buckets, by the position of the network and of the cost's factor."""
    clusters = [job.cluster.cluster() for job in jobs[0]]
    inputs = Inputs(clusters[0], load_device(jobs[0][0].workload.device), jobs[0][0].overhead)
    found: dict[tuple[int, int], Step] = {}
    for bucket, (job, *_) in zip(BUCKETS, jobs, strict=True):
        prediction = predict(job.at(workers), inputs, cache)
        for i, cluster in enumerate(clusters):
            phases = _elsewhere(prediction, cluster, costs)
            compute = phases.forward_s + phases.backward_s + phases.optimizer_s
            parts = phases.step_s, compute, phases.encode_s + phases.decode_s, phases.exposed_communication_s
            for j, row in enumerate(np.column_stack(parts).tolist()):
                step = Step(row[0], row[1], row[2], row[3], bucket)
                found[i, j] = min(found.get((i, j), step), step, key=lambda one: one.step_s)
    return found


def _elsewhere(prediction: Prediction, cluster: Cluster, costs: Sequence[float]) -> Phases:
    """Return the phases of a predicted step on another cluster, at some factors on the cost of compression: [costs].

    What a worker does, and what it hands over, does not depend on the cluster.
    """
    (graph,), timing, workers = prediction.timeline.plan.graphs, prediction.job.timing, prediction.job.training.workers
    network = Costs(cluster, workers, timing.algorithms, timing.gathers)
    try:
        uniform, priced = network.check_uniform(), price(graph, network, timing)
    except ClosedFormError as error:
        raise InputError(f"a grid needs the closed form, but {error}") from error
    point = uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s
    phases = step_times(graph, priced, *point, np.asarray(costs)[:, None])
    return Phases(*(np.broadcast_to(values, (len(costs), 1))[:, 0] for values in phases))
