"""Schemes at one point of (density, cost, network, workers), anew from their plans and curves: what the explorer shows.

The report's page computes the same in the reader's browser; this is what it is held to.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..sim.run import Run
from ..sim.step.phases import Phases
from ..sim.step.timeline import Plan
from ..sim.timing import Timer
from .comparison import PHASES, is_uncompressed
from .exploration_verdict import answer

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Point:
    """Where schemes are looked at.

    Attributes
    ----------
    bandwidth_bps, latency_s, launch_s : float
        In place of the cluster's.
    factor : float
        On the cost of encoding and decoding.
    density : float or None
        Of the schemes that have one; None if none has.
    workers : int
    """

    bandwidth_bps: float
    latency_s: float
    launch_s: float
    factor: float
    density: float | None
    workers: int


@dataclass(frozen=True, eq=False)
class Curve:
    """What one training learnt.

    Attributes
    ----------
    steps : IntArray, shape [E]
        Completed steps at each evaluation.
    metric : FloatArray, shape [E]
        The validation metric.
    status : str
        "completed", or how it failed.
    final_metric : float or None
        The test metric at the last evaluation; None if it is not known or not finite.
    """

    steps: IntArray
    metric: FloatArray
    status: str
    final_metric: float | None


@dataclass(frozen=True, eq=False)
class Candidate:
    """One scheme at one density and number of workers.

    Attributes
    ----------
    scheme : str
        Its label, equal at all densities and numbers of workers.
    uncompressed : bool
        Whether it is one that others are measured by.
    density : float or None
        None if it has none: it shows at every density.
    workers : int
    variants : tuple of tuples of Plan
        Ways to time the same trainings, such as bucket sizes, of which the fastest counts; in each, a plan a seed.
    curves : tuple of Curve
        One a seed; empty where it was not trained, so that only the times of steps are known.
    """

    scheme: str
    uncompressed: bool
    density: float | None
    workers: int
    variants: tuple[tuple[Plan, ...], ...]
    curves: tuple[Curve, ...]

    def __post_init__(self) -> None:
        if self.curves and any(len(plans) != len(self.curves) for plans in self.variants):
            raise ValueError(f"{self.scheme}: each variant must have a plan for each of {len(self.curves)} curves")


class Goal(NamedTuple):
    """What schemes are measured by: the metric, its target if there is one, and what to say of a proxy."""

    metric: str
    higher_is_better: bool
    target: float | None
    proxy: str | None


@dataclass(frozen=True)
class Row:
    """One scheme at a point: means over its seeds, NaN or None where a number is not known.

    Attributes
    ----------
    scheme : str
    uncompressed : bool
    seeds : int
        How many trainings there are; 0: only steps are known.
    reached : int
        How many of them reached the target.
    failure : str
        How a training failed; empty if all completed.
    phases_s : tuple of float
        What a step consists of, in the order of :data:`gradwire.analysis.comparison.PHASES`.
    step_s : float
    steps_to_target, time_to_target_s : float or None
        None unless every training reached it.
    final_metric : float or None
    evaluation_s, metric : tuple of float
        The curve: virtual time and validation metric, as far as every training came.
    step_speedup, speedup : float or None
        The best uncompressed scheme's step, and time to target, divided by this one's.
    """

    scheme: str
    uncompressed: bool
    seeds: int
    reached: int
    failure: str
    phases_s: tuple[float, ...]
    step_s: float
    steps_to_target: float | None
    time_to_target_s: float | None
    final_metric: float | None
    evaluation_s: tuple[float, ...]
    metric: tuple[float, ...]
    step_speedup: float | None = None
    speedup: float | None = None


@dataclass(frozen=True)
class Exploration:
    """All schemes at a point, the name of the best uncompressed one, and the verdict."""

    rows: tuple[Row, ...]
    baseline: str | None
    verdict: str


def explore(
    candidates: Iterable[Candidate],
    point: Point,
    *,
    metric: str,
    higher_is_better: bool,
    target: float | None,
    proxy: str | None = None,
) -> Exploration:
    """Compare the schemes that there are at a point.

    Parameters
    ----------
    candidates : iterable of Candidate
        Those of the point's workers, and of its density or none, are compared.
    point : Point
    metric : str
        Its name.
    higher_is_better : bool
    target : float or None
        What the validation metric is to reach.
    proxy : str or None
        What must be said if another model is timed than the one that is trained.

    Raises
    ------
    InputError
        If there is no closed form (:func:`reason_against`).
    """
    goal = Goal(metric, higher_is_better, target, proxy)
    rows = [_row(one, point, goal) for one in candidates if _is_at(one, point)]
    baseline = _baseline(rows)
    if baseline is not None:
        best = baseline
        rows = [_with_speedups(row, best) for row in rows]
        baseline = next(row for row in rows if row.scheme == best.scheme)
    return Exploration(tuple(rows), None if baseline is None else baseline.scheme, answer(rows, baseline, goal))


def run_candidates(run: Run) -> list[Candidate]:
    """Return the schemes of a run: each at the density that it has, from one seed, dense with all sizes of buckets."""
    workers, timer = run.experiment.training.workers, Timer(run.experiment, run.task)
    candidates = []
    for scheme, row in run.schemes.items():
        evaluations = row.trajectory.evaluations
        last = float(evaluations.test_metric[-1])
        final_metric = last if np.isfinite(last) else None
        curve = Curve(evaluations.steps, evaluations.validation_metric, row.trajectory.status, final_metric)
        plans = [row.timeline.plan]
        if is_uncompressed(scheme) and row.bucket_bytes is not None:
            plans = [plan for _, plan in timer.plans(row.trajectory)]
        variants = tuple((plan,) for plan in plans)
        candidates.append(Candidate(scheme, is_uncompressed(scheme), None, workers, variants, (curve,)))
    return candidates


def own_point(run: Run) -> Point | str:
    """Return the point at which a run was timed, or why its cluster is no point."""
    workers = run.experiment.training.workers
    uniform = run.experiment.cluster.cluster().uniform(workers)
    if isinstance(uniform, str):
        return uniform
    factor = run.experiment.overhead.factor
    return Point(uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s, factor, None, workers)


def reason_against(candidates: Iterable[Candidate]) -> str | None:
    """Say why the candidates cannot be timed at any point, if so."""
    for one in candidates:
        reasons = (plan.one_point_only() for plans in one.variants for plan in plans)
        if reason := next(filter(None, reasons), None):
            return reason
    return None


def _is_at(candidate: Candidate, point: Point) -> bool:
    return candidate.workers == point.workers and candidate.density in (None, point.density)


def _row(candidate: Candidate, point: Point, goal: Goal) -> Row:
    """Return a scheme's numbers, without speed-ups."""
    means = [_mean_step([_whole(plan, point) for plan in plans]) for plans in candidate.variants]
    fastest = min(range(len(means)), key=lambda i: (np.isnan(means[i].step_s), float(means[i].step_s)))
    step, plans = means[fastest], candidate.variants[fastest]
    runs = [_Timed.of(curve, plan, point, goal) for curve, plan in zip(candidate.curves, plans, strict=False)]
    reached = [run for run in runs if run.reached is not None]
    every = bool(runs) and len(reached) == len(runs)
    finals = [curve.final_metric for curve in candidate.curves]
    known = [value for value in finals if value is not None]
    shared = min((len(run.metric) for run in runs), default=0)
    return Row(
        scheme=candidate.scheme,
        uncompressed=candidate.uncompressed,
        seeds=len(runs),
        reached=len(reached),
        failure=_failure([curve.status for curve in candidate.curves]),
        phases_s=tuple(float(getattr(step, name)) for name in PHASES.values()),
        step_s=float(step.step_s),
        steps_to_target=_mean([run.steps[run.reached or 0] for run in runs]) if every else None,
        time_to_target_s=_mean([run.seconds[run.reached or 0] for run in runs]) if every else None,
        final_metric=_mean(known) if known and len(known) == len(finals) else None,
        evaluation_s=tuple(_mean([run.seconds[i] for run in runs]) for i in range(shared)),
        metric=tuple(_mean([run.metric[i] for run in runs]) for i in range(shared)),
    )


class _Timed(NamedTuple):
    """One training's evaluations as far as they are finite, and the first of them on target."""

    steps: IntArray
    seconds: FloatArray
    metric: FloatArray
    reached: int | None

    @classmethod
    def of(cls, curve: Curve, plan: Plan, point: Point, goal: Goal) -> "_Timed":
        valid = np.isfinite(curve.metric) & (curve.steps <= len(plan.graph))
        end = len(valid) if valid.all() else int(np.argmin(valid))
        steps, metric = curve.steps[:end], curve.metric[:end]
        target = np.nan if goal.target is None else goal.target
        meets = metric >= target if goal.higher_is_better else metric <= target
        return cls(steps, _elapsed(plan, steps, point).step_s, metric, int(np.argmax(meets)) if meets.any() else None)


def _elapsed(plan: Plan, steps: Sequence[int] | IntArray, point: Point) -> Phases:
    return plan.elapsed(steps, point.bandwidth_bps, point.latency_s, point.launch_s, point.factor)


def _whole(plan: Plan, point: Point) -> Phases:
    """Return a run's mean step; NaN if it has none."""
    steps = len(plan.graph)
    total = _elapsed(plan, [steps], point)
    return Phases(*(value[0] / steps if steps else np.full((), np.nan) for value in total))


def _mean_step(steps: Sequence[Phases]) -> Phases:
    """Return the mean over runs that have steps."""
    known = [step for step in steps if not np.isnan(step.step_s)] or steps[:1]
    return Phases(*(np.mean(values) for values in zip(*known, strict=True)))


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))


def _failure(statuses: Sequence[str]) -> str:
    """Say how trainings failed, without the reason."""
    failed = [status for status in statuses if status != "completed"]
    if len(statuses) > 1 and failed:
        return f"{len(failed)} of {len(statuses)} seeds failed"
    return failed[0].partition(":")[0] if failed else ""


def _baseline(rows: Sequence[Row]) -> Row | None:
    """Return the best uncompressed row: soonest at the target or, if none reached it, the one of the fastest step."""
    rivals = [row for row in rows if row.uncompressed and not row.failure]
    reached = [row for row in rivals if row.time_to_target_s is not None]
    if reached:
        return min(reached, key=lambda row: row.time_to_target_s or 0.0)
    return min(rivals, key=lambda row: row.step_s, default=None)


def _with_speedups(row: Row, baseline: Row) -> Row:
    own, best = row.time_to_target_s, baseline.time_to_target_s
    speedup = best / own if own and best is not None else None  # a target met at time 0 gives no ratio
    step_speedup = None if np.isnan(row.step_s) else baseline.step_s / row.step_s
    return replace(row, step_speedup=step_speedup, speedup=speedup)
