"""Advice for a task: schemes are trained from several seeds, or taken from the store, and timed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...compressors.spec import parse_scheme
from ...compressors.wirelog import StepLog
from ...sim.experiment import Experiment
from ...sim.models import load_model
from ...sim.prediction import Inputs
from ...sim.run import Progress, Run, run
from ...sim.tasks.base import Task
from ...sim.timing import Timer, Variant
from ...sim.training.store import Store
from ..comparison import Comparison, Row, compare, is_uncompressed
from ..formatting import format_percent
from ..predictions import Price
from ..verdict import HARM
from .advice import Advice, ModelError, Option, Trial, decide
from .cases import Case
from .choice import flips, tippings
from .effects import case_effects
from .gains import paired_gain
from .memory import scheme_memory
from .models import BASELINES
from .ranges import estimated_parts, model_error, outside_costs, outside_model_times, outside_numbers, works_of


class _Trained(NamedTuple):
    """An experiment's runs from several seeds, and what each scheme made of them."""

    runs: list[Run]
    comparisons: list[Comparison]

    @property
    def first(self) -> Experiment:
        return self.runs[0].experiment

    @property
    def by_step(self) -> bool:
        """Whether steps are compared: there is no target, or the untrained model meets it."""
        rows = (row for comparison in self.comparisons for row in comparison.rows)
        return self.first.training.target is None or any(row.steps_to_target == 0 for row in rows)

    def rows(self, scheme: str) -> list[Row]:
        """Return a scheme's row of each seed."""
        return [row for comparison in self.comparisons for row in comparison.rows if row.scheme == scheme]


def with_baselines(experiment: Experiment) -> Experiment:
    """Return the experiment with those of :data:`BASELINES` in front that are not among its schemes."""
    known = set(experiment.schemes)
    if "dense(dtype=native)" in known and experiment.training.dtype == "float32":
        known.add("dense(dtype=fp32)")  # the same
    missing = tuple(scheme for scheme in BASELINES if scheme not in known)
    return experiment.model_copy(update={"schemes": (*missing, *experiment.schemes)})


def advise_task(
    experiment: Experiment,
    store: Store,
    seeds: int = 3,
    price: Price | None = None,
    sensitivity: bool = True,
    progress: Progress | None = None,
    search: Path | None = None,
) -> Advice:
    """Advise on compression for an experiment; its schemes are the candidates.

    Parameters
    ----------
    experiment : Experiment
        As :func:`with_baselines` returns it.
    store : Store
    seeds : int
        How many trainings of each scheme, with ``training.seed`` and those that follow it.
    price : Price, optional
    sensitivity : bool
        Whether to find out which inputs matter, and by how much each must change for another answer.
    progress : callable, optional
        Called with a scheme and the number of its completed steps, over all seeds.
    search : Path, optional
        Where a task of one's own is looked up first.

    Raises
    ------
    InputError
        As :func:`gradwire.sim.run.run`.
    """
    trained = _train(experiment, store, seeds, progress, search)
    task = trained.runs[0].task
    cases = list(_cases(trained))
    options, baseline = _options(trained)
    error = _error(trained, baseline)
    answer, best = decide(options, baseline, error)
    advised = [] if baseline is None else _harmless(cases, options)
    asked = sensitivity and baseline is not None and best is not None
    return Advice(
        subject=_subject(experiment, seeds),
        workers=experiment.training.workers,
        trained=True,
        by_step=trained.by_step,
        metric=task.metric,
        target=experiment.training.target,
        proxy=trained.comparisons[0].proxy,
        answer=answer,
        best=None if best is None else best.scheme,
        baseline=None if baseline is None else baseline.scheme,
        options=tuple(options),
        trials=tuple(Trial(case.scheme, case.bucket_bytes, case.seconds()) for case in cases if case.uncompressed),
        error=error,
        effects=tuple(case_effects(cases, best.scheme)) if asked and best else (),
        tippings=tuple(tippings(advised)) if asked and advised else (),
        flips=tuple(flips(advised)) if advised else (),
        outside=tuple(_outside(trained, cases)),
        notes=tuple(_notes(trained, options)),
        compute_source=Timer(trained.first, task).workload.source,
        price=price,
    )


def _train(
    experiment: Experiment, store: Store, seeds: int, progress: Progress | None, search: Path | None
) -> _Trained:
    """Run the experiment from each seed."""
    runs = []
    for i in range(seeds):
        training = experiment.training.model_copy(update={"seed": experiment.training.seed + i})
        own = experiment.model_copy(update={"training": training})
        runs.append(run(own, store, _later(progress, i * training.steps), search))
    return _Trained(runs, [compare(one.dataset()) for one in runs])


def _later(progress: Progress | None, before: int) -> Progress | None:
    """Return what reports the steps of a seed after those of others."""
    return None if progress is None else lambda scheme, steps: progress(scheme, before + steps)


def _cases(trained: _Trained) -> Iterator[Case]:
    """Yield the cases of schemes that were trained to the end, or to the target, from each seed."""
    timers = [Timer(one.experiment, one.task) for one in trained.runs]
    experiment = trained.first
    inputs = Inputs(experiment.cluster.cluster(), experiment.workload.device_model(), experiment.overhead)
    for scheme in experiment.schemes:
        rows = trained.rows(scheme)
        if not all(row.completed and (trained.by_step or row.steps_to_target) for row in rows):
            continue
        by_seed: list[list[Variant]] = [
            list(timer.variants(one.schemes[scheme].trajectory))
            for timer, one in zip(timers, trained.runs, strict=True)
        ]
        for variants in zip(*by_seed, strict=True):
            ends = [
                len(v.logs) if trained.by_step else row.steps_to_target for v, row in zip(variants, rows, strict=True)
            ]
            yield Case(
                scheme=scheme,
                uncompressed=is_uncompressed(scheme),
                bucket_bytes=variants[0].bucket_bytes,
                runs=tuple(tuple(variant.logs[:end]) for variant, end in zip(variants, ends, strict=True)),
                by_step=trained.by_step,
                ready=variants[0].ready,
                workload=timers[0].workload,
                inputs=inputs,
                options=experiment.timing,
            )


def _options(trained: _Trained) -> tuple[list[Option], Option | None]:
    """Return all schemes' numbers with their gains, and the baseline's."""
    found = [_option(trained, scheme, trained.runs[0].task) for scheme in trained.first.schemes]
    first = _baseline(found, trained.by_step)
    options = [_compared(option, first, trained) for option in found]
    return options, next((one for one in options if first and one.scheme == first.scheme), None)


def _option(trained: _Trained, scheme: str, task: Task) -> Option:
    """Return a scheme's numbers, without its gain."""
    rows, experiment = trained.rows(scheme), trained.first
    logs = list(dict.fromkeys(_logs(trained, scheme)))
    inputs = Inputs(experiment.cluster.cluster(), experiment.workload.device_model(), experiment.overhead)
    reached = [row for row in rows if row.steps_to_target is not None]
    everywhere = len(reached) == len(rows)
    metrics = [row.final_metric for row in rows if row.final_metric is not None]
    dtype = (
        torch.float64 if experiment.training.dtype == "float64" and experiment.workload.model is None else torch.float32
    )
    memory = scheme_memory(
        parse_scheme(scheme),
        Timer(experiment, task).partition(experiment.training),
        experiment.training.workers,
        logs,
        dtype,
        experiment.timing.gathers,
    )
    times_s = [row.time_to_target_s or 0.0 for row in reached]
    return Option(
        scheme=scheme,
        uncompressed=is_uncompressed(scheme),
        bucket_bytes=rows[0].bucket_bytes,
        sent_bytes=_mean([row.sent_bytes for row in rows]),
        compute_s=_mean([row.compute_s for row in rows]),
        codec_s=_mean([row.codec_s for row in rows]),
        exposed_s=_mean([row.exposed_communication_s for row in rows]),
        step_s=_mean([row.step_s for row in rows]),
        memory=memory,
        cost_source=rows[0].cost_source,
        estimated=estimated_parts(works_of(logs), inputs),
        steps_to_target=_mean([row.steps_to_target or 0 for row in reached]) if everywhere else None,
        time_to_target_s=_geometric(times_s) if everywhere and all(times_s) else None,
        reached=len(reached),
        seeds=len(rows),
        final_metric=_mean(metrics) if len(metrics) == len(rows) else None,
        failure=next((row.status for row in rows if not row.completed), ""),
    )


def _logs(trained: _Trained, scheme: str) -> Iterator[StepLog]:
    """Yield the different steps of a scheme as they were timed."""
    for one in trained.runs:
        for graph in one.schemes[scheme].timeline.plan.graphs:
            yield from graph.logs


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _baseline(options: Sequence[Option], by_step: bool) -> Option | None:
    """Return the best uncompressed option that trained to the end and, where that counts, reached the target."""
    plain = [one for one in options if one.uncompressed and not one.failure]
    if by_step:
        return min(plain, key=lambda one: one.step_s, default=None)
    reached = [one for one in plain if one.time_to_target_s is not None]
    return min(reached, key=lambda one: one.time_to_target_s or 0.0, default=None)


def _compared(option: Option, baseline: Option | None, trained: _Trained) -> Option:
    """Return an option with what it gains over the baseline."""
    if baseline is None:
        return option
    pairs = zip(trained.rows(baseline.scheme), trained.rows(option.scheme), strict=True)
    if trained.by_step:
        times = [(base.step_s, own.step_s) for base, own in pairs if own.completed_steps]
    else:
        both = [(base.time_to_target_s, own.time_to_target_s) for base, own in pairs]
        times = [(base_s, own_s) for base_s, own_s in both if base_s and own_s]
    whole = len(times) == option.seeds and not option.failure
    return replace(
        option,
        step_gain=baseline.step_s / option.step_s,
        gain=paired_gain(*map(list, zip(*times, strict=True))) if whole else None,
        harms=_harms(option, baseline, trained.comparisons[0].higher_is_better),
    )


def _harms(option: Option, baseline: Option, higher_is_better: bool) -> bool | None:
    """Return whether a final metric is worse than the baseline's by more than is called equal."""
    own, best = option.final_metric, baseline.final_metric
    if own is None or best is None:
        return None
    return (best - own if higher_is_better else own - best) > HARM * abs(best)


def _harmless(cases: Sequence[Case], options: Sequence[Option]) -> list[Case]:
    """Return the cases without those of schemes that do harm; none if no compressing one is left."""
    harmful = {option.scheme for option in options if option.harms and not option.uncompressed}
    left = [case for case in cases if case.scheme not in harmful]
    return left if any(not case.uncompressed for case in left) else []


def _error(trained: _Trained, baseline: Option | None) -> ModelError | None:
    """Return what is known of the model's error, which is about listed models: those that proxies are timed as."""
    experiment = trained.first
    if experiment.workload.model is None or baseline is None:
        return None
    return model_error(
        experiment.workload.model,
        experiment.cluster.cluster(),
        experiment.training.workers,
        experiment.schemes,
        experiment.timing.overlap,
    )


def _outside(trained: _Trained, cases: Sequence[Case]) -> Iterator[str]:
    experiment, section = trained.first, trained.first.workload
    device = section.device_model()
    if section.model is not None:
        batch = section.batch or load_model(section.model).batch
        yield from outside_model_times(section.model, device, batch, "auto")
    elif section.times is None:
        yield "compute times: not measured, a roofline estimate"
    inputs = Inputs(experiment.cluster.cluster(), device, experiment.overhead)
    works = works_of(log for case in cases for run in case.runs for log in run)
    yield from outside_costs(works, inputs)
    computed = bool(cases) and cases[0].workload.source.startswith("analytic")
    encoded = bool(estimated_parts(works, inputs))
    yield from outside_numbers(inputs.cluster, device, experiment.training.workers, computed, encoded)


def _notes(trained: _Trained, options: Sequence[Option]) -> Iterator[str]:
    """Yield what a reader must know besides: failures, missed targets, and what comparisons note of single runs."""
    for option in options:
        if option.failure:
            yield f"{option.scheme} {option.failure}."
        elif not trained.by_step and option.reached < option.seeds:
            yield f"{option.scheme} reached the target from {option.reached} of {option.seeds} seeds."
        if option.harms:
            worse = f"a test {trained.comparisons[0].metric} that is worse than the baseline's"
            yield f"{option.scheme} ends with {worse} by more than {format_percent(HARM)} of it, and is not advised."
        rates = [row.learning_rate for row in trained.rows(option.scheme)]
        if rates[0] is not None:
            yield f"Learning rates chosen for {option.scheme}, by seed: {', '.join(f'{rate:g}' for rate in rates)}."
    if not trained.by_step and trained.first.training.evaluate_every > 1:
        every = trained.first.training.evaluate_every
        yield f"Times to the target are rounded up to the next evaluation, up to {every} steps later."
    if trained.first.training.target is not None and trained.by_step:
        yield "The target is met before the first step, so steps are compared."
    elif trained.by_step:
        yield "No target was set, so steps are compared, not the time to reach an accuracy."
    if len(trained.runs) == 1:
        yield "Each scheme was trained once, from one seed: small differences may be chance."


def _subject(experiment: Experiment, seeds: int) -> str:
    training, section = experiment.training, experiment.workload
    return (
        f"{experiment.task.name}, batch {training.batch_size} a worker, {training.workers} workers on "
        f"{experiment.cluster.label}, {section.device}; {seeds} seed{'s' * (seeds > 1)} of {training.steps:,} steps"
    )
