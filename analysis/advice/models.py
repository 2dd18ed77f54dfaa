"""Advice for a listed model: steps alone, since accuracies are not known without training."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ...compressors.base import SchemeError
from ...compressors.partition import Partition, partition
from ...compressors.spec import parse_scheme
from ...sim.experiment import BaselineSection
from ...sim.models import load_model
from ...sim.prediction import Job, Prediction, check_unit, predict
from ...sim.step.synthetic import Cache
from ...sim.step.workload import ready_after
from ..comparison import is_uncompressed
from ..predictions import Price, heading
from .advice import Advice, Effect, ModelError, Option, Trial, decide
from .cases import Case
from .choice import Flip, Tipping, flips, tippings
from .effects import model_effects
from .gains import Gain
from .memory import scheme_memory
from .ranges import estimated_parts, model_error, outside_costs, outside_model_times, outside_numbers, works_of

BASELINES = ("dense(dtype=fp32)", "dense(dtype=bf16)")
"""The uncompressed schemes that compete to be the baseline."""
CANDIDATES = (
    "ef(topk(density=0.001))",
    "ef(topk(density=0.01))",
    "ef(topk(density=0.1))",
    "ef(randomblock(density=0.01))",
    "ef(randomblock(density=0.1))",
    "ef(powersgd(rank=1))",
    "ef(powersgd(rank=4))",
    "qsgd(bits=4)",
    "qsgd(bits=8)",
    "ef(scaledsign)",
)
"""What is tried where no schemes are given: each of the common kinds, the sparse ones at several densities."""
Progress = Callable[[str], None]
"""Called with what has been done."""


def advise_model(
    job: Job,
    schemes: Sequence[str] = (),
    price: Price | None = None,
    sensitivity: bool = True,
    progress: Progress = lambda _: None,
) -> Advice:
    """Advise on compression for a job.

    Parameters
    ----------
    job : Job
        Its scheme is not used.
    schemes : sequence of str
        Candidates, text forms; by default :data:`CANDIDATES`, without those that cannot take the job's units.
    price : Price, optional
    sensitivity : bool
        Whether to find out which inputs matter, and by how much each must change for another answer.
    progress : callable

    Raises
    ------
    InputError
        As :func:`gradwire.sim.prediction.predict`.

    Notes
    -----
    Every scheme takes the size of buckets that suits it best, unless a bucket is what it compresses. Where inputs are
    changed, only uncompressed ones choose anew. Bytes are those of the job's cluster, also where its numbers are
    changed: of what adapts to the cluster (``cost=cluster``) the choice is kept.
    """
    cache = Cache()
    found = dict(_predictions(job, schemes, cache, progress))
    fastest = {scheme: min(some, key=lambda one: one.step_s) for scheme, some in found.items()}
    timed = (some if is_uncompressed(scheme) else [fastest[scheme]] for scheme, some in found.items())
    cases = [_case(prediction) for some in timed for prediction in some]
    baseline = min((one for s, one in fastest.items() if is_uncompressed(s)), key=lambda one: one.step_s)
    options = list(_options(fastest.values(), baseline, progress))
    first = next(one for one in options if one.scheme == baseline.job.scheme)
    error = _error(baseline, options)
    answer, best = decide(options, first, error)
    asked = (baseline, fastest[best.scheme]) if sensitivity and best is not None else None
    dependence = _Dependence() if best is None else _dependence(asked, cases, cache, progress)
    return Advice(
        subject=heading(baseline),
        workers=job.training.workers,
        trained=False,
        by_step=True,
        answer=answer,
        best=None if best is None else best.scheme,
        baseline=first.scheme,
        options=tuple(options),
        trials=tuple(Trial(case.scheme, case.bucket_bytes, case.seconds()) for case in cases if case.uncompressed),
        error=error,
        **dependence._asdict(),
        outside=tuple(_outside(job, baseline, cases)),
        notes=tuple(_left_out(job, schemes, found)),
        compute_source=baseline.workload.source,
        price=price,
    )


class _Dependence(NamedTuple):
    """What an answer hangs on."""

    effects: tuple[Effect, ...] = ()
    tippings: tuple[Tipping, ...] = ()
    flips: tuple[Flip, ...] = ()


def _dependence(
    asked: tuple[Prediction, Prediction] | None, cases: Sequence[Case], cache: Cache, progress: Progress
) -> _Dependence:
    """Find out what an answer hangs on; of inputs only if the baseline and the best scheme are given."""
    unmeasured = tuple(flips(cases))
    if asked is None:
        return _Dependence(flips=unmeasured)
    effects = tuple(model_effects(*asked, cases, cache))
    return _Dependence(effects, tuple(tippings(cases, lambda: progress("an input"))), unmeasured)


def bucket_jobs(job: Job) -> list[Job]:
    """Return the job with each size of buckets that a scheme may choose, its own first."""
    training = job.training
    if training.message != "bucket":
        return [job]
    sizes = dict.fromkeys((training.bucket, *BaselineSection().buckets))
    first = training.first_bucket
    changes = ({"bucket": size, "first_bucket": min(size, first)} for size in sizes)
    return [job, *(job.model_copy(update={"training": training.model_copy(update=c)}) for c in list(changes)[1:])]


def _predictions(
    job: Job, schemes: Sequence[str], cache: Cache, progress: Progress
) -> Iterator[tuple[str, list[Prediction]]]:
    """Yield each scheme's predictions, one for every size of buckets."""
    given = [str(parse_scheme(scheme)) for scheme in schemes]
    for scheme in given:
        check_unit(parse_scheme(scheme), job.training.unit)
    for scheme in dict.fromkeys((*BASELINES, *(given or CANDIDATES))):
        own = job.model_copy(update={"scheme": scheme})
        jobs = bucket_jobs(own) if is_uncompressed(scheme) or job.training.unit == "layer" else [own]
        try:
            yield scheme, [predict(one, cache=cache) for one in jobs]
        except SchemeError:
            if given:
                raise
        progress(scheme)


def _left_out(job: Job, schemes: Sequence[str], found: dict[str, list[Prediction]]) -> Iterator[str]:
    missing = [] if schemes else [scheme for scheme in CANDIDATES if scheme not in found]
    if missing:
        yield f"Left out, since they cannot take units of training.unit = {job.training.unit}: {', '.join(missing)}."


def _cut(job: Job) -> Partition:
    shapes, training = load_model(job.model).parameters(), job.training
    return partition(shapes, training.unit, training.message, training.bucket, training.first_bucket)


def _case(prediction: Prediction) -> Case:
    job, plan = prediction.job, prediction.timeline.plan
    return Case(
        scheme=job.scheme,
        uncompressed=is_uncompressed(job.scheme),
        bucket_bytes=job.training.bucket if job.training.message == "bucket" else None,
        runs=(plan.graphs[0].logs,),
        by_step=True,
        ready=ready_after(_cut(job), prediction.workload),
        workload=prediction.workload,
        inputs=prediction.inputs,
        options=job.timing.model_copy(update={"one_bucket_first": False}),
    )


def _option(prediction: Prediction) -> Option:
    """Return a scheme's numbers, without its gain."""
    job, times, logs = prediction.job, prediction.timeline, prediction.timeline.plan.graphs[0].logs
    return Option(
        scheme=job.scheme,
        uncompressed=is_uncompressed(job.scheme),
        bucket_bytes=job.training.bucket if job.training.message == "bucket" else None,
        sent_bytes=sum(prediction.sent_bytes),
        compute_s=float((times.forward_s + times.backward_s + times.optimizer_s)[0]),
        codec_s=float((times.encode_s + times.decode_s)[0]),
        exposed_s=float(times.exposed_communication_s[0]),
        step_s=prediction.step_s,
        memory=scheme_memory(
            parse_scheme(job.scheme), _cut(job), job.training.workers, logs, gathers=job.timing.gathers
        ),
        cost_source=prediction.cost_source,
        estimated=estimated_parts(works_of(logs), prediction.inputs),
    )


def _options(predictions: Iterable[Prediction], baseline: Prediction, progress: Progress) -> Iterator[Option]:
    """Yield each scheme's numbers, with its gain."""
    for prediction in predictions:
        gain = baseline.step_s / prediction.step_s
        yield replace(_option(prediction), step_gain=gain, gain=Gain(gain))
        progress(f"memory of {prediction.job.scheme}")


def _error(baseline: Prediction, options: Sequence[Option]) -> ModelError | None:
    """Return what is known of the model's error for the baseline and the fastest scheme that compresses."""
    job = baseline.job
    rivals = sorted((one for one in options if not one.uncompressed), key=lambda one: one.step_s)
    spoken = [job.scheme, *(one.scheme for one in rivals[:1])]
    return model_error(job.model, baseline.inputs.cluster, job.training.workers, spoken, job.timing.overlap)


def _outside(job: Job, baseline: Prediction, cases: Sequence[Case]) -> Iterator[str]:
    inputs, times = baseline.inputs, job.workload.times
    yield from outside_model_times(job.model, inputs.device, job.batch, times)
    works = works_of(log for case in cases for run in case.runs for log in run)
    costs = list(outside_costs(works, inputs))
    yield from costs
    computed = "analytic" in baseline.workload.source
    encoded = any(part for part in estimated_parts(works, inputs))
    yield from outside_numbers(inputs.cluster, inputs.device, job.training.workers, computed, encoded)
