"""What a run's arrays say of each scheme in numbers: bytes, phases of a step, time to target, speed-ups; no drawing."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from ..compressors.base import SchemeError
from ..compressors.quantizers.dense import Dense
from ..compressors.spec import parse_scheme
from ..sim.units import format_size
from .formatting import format_target

PHASES = {
    "forward": "forward_s",
    "backward": "backward_s",
    "encode": "encode_s",
    "decode": "decode_s",
    "optimizer": "optimizer_s",
    "exposed communication": "exposed_communication_s",
}
"""What a step consists of, by the variable that holds its seconds; together they are the step."""


@dataclass(frozen=True)
class Row:
    """What one scheme cost and achieved. Means run over its completed steps and are NaN if there were none.

    Attributes
    ----------
    scheme : str
        Its text form.
    uncompressed : bool
        Whether it is a plain ``dense``, with nothing around it.
    sent_bytes : float
        Mean bytes that a worker hands over in a step.
    compute_s, codec_s, exposed_communication_s, step_s : float
        Means of a step's forward, backward and optimizer; of encode and decode; of the communication that nothing
        hides; and of the whole step, which is their sum. Virtual time.
    steps_to_target : int or None
        Completed steps at the first evaluation whose validation metric meets the target; None if none does.
    time_to_target_s : float or None
        The virtual time of that evaluation.
    speedup, step_speedup : float or None
        The baseline's time to target, and its step, divided by the scheme's own.
    final_metric : float or None
        The test metric at the last evaluation; None if it is not finite, as after a divergence.
    completed_steps : int
    status : str
        "completed", or how it failed.
    cost_source : str
        Where the costs of encoding and decoding come from.
    engine : str
        What timed the steps, and why: "closed-form: ..." or "events: ...".
    bucket_bytes : float or None
        The size of its buckets, which is tuned for uncompressed schemes; None where messages are not buckets.
    learning_rate : float or None
        The best of those that were tried; None if none were.
    """

    scheme: str
    uncompressed: bool
    sent_bytes: float
    compute_s: float
    codec_s: float
    exposed_communication_s: float
    step_s: float
    steps_to_target: int | None
    time_to_target_s: float | None
    final_metric: float | None
    completed_steps: int
    status: str
    cost_source: str
    engine: str = ""
    bucket_bytes: float | None = None
    learning_rate: float | None = None
    speedup: float | None = None
    step_speedup: float | None = None

    @property
    def completed(self) -> bool:
        """Whether the scheme trained to the end."""
        return self.status == "completed"

    @property
    def failure(self) -> str:
        """How the scheme failed, without the reason; empty if it completed."""
        return "" if self.completed else self.status.partition(":")[0]

    @property
    def estimated(self) -> bool:
        """Whether the scheme encodes at a cost that is not measured on this device: a roofline's, or a scaled one."""
        return self.codec_s > 0 and any(word in self.cost_source for word in ("estimate", "scaled"))


@dataclass(frozen=True)
class Comparison:
    """All schemes of a run side by side.

    Attributes
    ----------
    metric : str
        The name of the task's metric.
    higher_is_better : bool
    target : float or None
        What the validation metric is to reach.
    steps : int
        How many steps each scheme was to train.
    baseline : Row or None
        The best completed uncompressed scheme: soonest at the target or, if none reached it, the fastest step.
    rows : tuple of Row
        One a scheme, in the run's order.
    notes : tuple of str
        What a reader must know to trust the numbers as far as they go, a sentence each.
    proxy : str or None
        What must be said wherever a number shows if another model is timed than the one that is trained.
    """

    metric: str
    higher_is_better: bool
    target: float | None
    steps: int
    baseline: Row | None
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    proxy: str | None = None


def compare(dataset: xr.Dataset) -> Comparison:
    """Reduce a run's arrays to a row a scheme.

    Parameters
    ----------
    dataset : xarray.Dataset
        A run: variables over (scheme, step) and (scheme, evaluation), with the attributes ``metric``,
        ``higher_is_better`` and, if there is one, ``target``.
    """
    rows = [_row(dataset.isel(scheme=index)) for index in range(dataset.sizes["scheme"])]
    baseline = _baseline(rows)
    if baseline is not None:
        rows = [_with_speedups(row, baseline) for row in rows]
        baseline = next(row for row in rows if row.scheme == baseline.scheme)
    return Comparison(
        metric=str(dataset.attrs["metric"]),
        higher_is_better=bool(dataset.attrs["higher_is_better"]),
        target=_target(dataset),
        steps=dataset.sizes["step"],
        baseline=baseline,
        rows=tuple(rows),
        notes=tuple(_notes(dataset, rows, baseline)),
        proxy=proxy_of(dataset),
    )


def proxy_of(dataset: xr.Dataset) -> str | None:
    """Return in a few words which task's learning is timed as which model's steps, if they differ."""
    attrs = dataset.attrs
    return f"proxy: trained on {attrs['task']}, timed as {attrs['proxy']}" if "proxy" in attrs else None


def is_uncompressed(scheme: str) -> bool:
    """Return whether a scheme's text is a plain ``dense``; a text that cannot be read is not."""
    try:
        return isinstance(parse_scheme(scheme), Dense)
    except SchemeError:
        return False


def first_at_target(dataset: xr.Dataset) -> int | None:
    """Return the index of one scheme's first evaluation whose validation metric meets the target, if any does.

    Parameters
    ----------
    dataset : xarray.Dataset
        A run of which one scheme is selected.
    """
    target = _target(dataset)
    if target is None:
        return None
    metric = dataset["validation_metric"].values
    meets = metric >= target if dataset.attrs["higher_is_better"] else metric <= target
    return int(np.argmax(meets)) if meets.any() else None


def mean(one: xr.Dataset, *names: str) -> float:
    """Return the mean, over one scheme's completed steps, of the sum of some variables; NaN if there are none.

    Parameters
    ----------
    one : xarray.Dataset
        A run of which one scheme is selected.
    *names : str
        Variables over steps.
    """
    completed = int(one["completed_steps"])
    return float(np.mean(sum(one[name].values[:completed] for name in names))) if completed else float("nan")


def _target(dataset: xr.Dataset) -> float | None:
    return float(dataset.attrs["target"]) if "target" in dataset.attrs else None


def _row(one: xr.Dataset) -> Row:
    """Return the numbers of one scheme, without speed-ups."""
    scheme = str(one["scheme"].item())
    reached = first_at_target(one)
    final_metric = float(one["test_metric"].values[-1])
    return Row(
        scheme=scheme,
        uncompressed=is_uncompressed(scheme),
        sent_bytes=mean(one, "sent_bytes"),
        compute_s=mean(one, "forward_s", "backward_s", "optimizer_s"),
        codec_s=mean(one, "encode_s", "decode_s"),
        exposed_communication_s=mean(one, "exposed_communication_s"),
        step_s=mean(one, "step_s"),
        steps_to_target=None if reached is None else int(one["evaluated_step"].values[reached]),
        time_to_target_s=None if reached is None else float(one["evaluation_s"].values[reached]),
        final_metric=final_metric if np.isfinite(final_metric) else None,
        completed_steps=int(one["completed_steps"]),
        status=str(one["status"].item()),
        cost_source=str(one["cost_source"].item()),
        engine=str(one["engine"].item()) if "engine" in one else "",
        bucket_bytes=_known(one, "bucket_bytes"),
        learning_rate=_known(one, "tuned_learning_rate"),
    )


def _known(one: xr.Dataset, name: str) -> float | None:
    """Return a number of a scheme, None if there is none."""
    value = float(one[name]) if name in one else float("nan")
    return None if np.isnan(value) else value


def _baseline(rows: Iterable[Row]) -> Row | None:
    """Return the best uncompressed row; one that diverged is nothing to measure others by."""
    candidates = [row for row in rows if row.uncompressed and row.completed]
    reached = [row for row in candidates if row.time_to_target_s is not None]
    if reached:
        return min(reached, key=lambda row: row.time_to_target_s or 0.0)
    return min(candidates, key=lambda row: row.step_s, default=None)


def _with_speedups(row: Row, baseline: Row) -> Row:
    own, best = row.time_to_target_s, baseline.time_to_target_s
    speedup = best / own if own and best is not None else None  # a target met at time 0 gives no ratio
    return replace(row, speedup=speedup, step_speedup=baseline.step_s / row.step_s if row.completed_steps else None)


def _notes(dataset: xr.Dataset, rows: list[Row], baseline: Row | None) -> Iterable[str]:
    """Say what limits the numbers."""
    if not any(row.uncompressed for row in rows):
        yield "No uncompressed scheme (dense) was run, so there are no speed-ups."
    elif baseline is None:
        yield "No uncompressed scheme completed, so there are no speed-ups."
    yield from (f"{row.scheme} {row.status}." for row in rows if not row.completed)
    yield from _target_notes(dataset, rows)
    yield from _choice_notes(dataset, rows)
    for source in sorted({row.cost_source for row in rows if row.estimated}):
        names = ", ".join(row.scheme for row in rows if row.estimated and row.cost_source == source)
        yield f"The cost of encoding and decoding rests on estimates for {names}: {source}."
    beyond = dataset["extrapolated"].values if "extrapolated" in dataset else ()  # older runs do not have it
    for why in dict.fromkeys(str(text) for text in beyond if text):
        yield f"The network is extrapolated beyond what was measured: {why}."
    for why in dict.fromkeys(row.engine.partition(": ")[2] for row in rows if row.engine.startswith("events")):
        yield f"Every transfer was played by the event engine: {why}."
    yield "Each scheme was trained once, from one seed: small differences of the metric may be chance."


def _choice_notes(dataset: xr.Dataset, rows: list[Row]) -> Iterable[str]:
    """Say what stands in for what, and what was chosen for which scheme."""
    if "proxy" in dataset.attrs:
        yield (
            f"A proxy: what is learnt is that of the task {dataset.attrs['task']}; bytes and times of a step are those "
            f"of {dataset.attrs['proxy']}, which would learn otherwise."
        )
    for row in rows:
        if row.bucket_bytes is not None and row.bucket_bytes != dataset.attrs.get("bucket_bytes", row.bucket_bytes):
            size = format_size(int(row.bucket_bytes))
            yield f"{row.scheme} is timed with buckets of {size}, the fastest of the sizes tried."
    tuned = [row for row in rows if row.learning_rate is not None]
    tried = [float(rate) for rate in np.atleast_1d(dataset.attrs.get("tuned_rates", []))]
    if len(tried) < 2:
        return
    picked = "; ".join(f"{row.scheme}: {row.learning_rate:g}" for row in tuned)
    grid = ", ".join(f"{rate:g}" for rate in tried)
    yield f"Learning rates were chosen for each scheme on the validation split, of {grid}: {picked}."
    ends = [row.scheme for row in tuned if row.learning_rate in (tried[0], tried[-1])]
    if ends:
        yield f"The rate is at an end of the grid for {', '.join(ends)}: a wider grid may serve better."


def _target_notes(dataset: xr.Dataset, rows: list[Row]) -> Iterable[str]:
    """Say how far times to target can be trusted."""
    target, metric = _target(dataset), str(dataset.attrs["metric"])
    if target is None:
        yield "No target was set, so only steps are compared, not the time to reach an accuracy."
        return
    wanted = format_target(target, metric)
    late = [row for row in rows if row.completed and row.steps_to_target is None]
    yield from (f"{row.scheme} did not reach {wanted} in {row.completed_steps} steps." for row in late)
    if any(row.steps_to_target == 0 for row in rows):
        yield f"The target of {wanted} is met before the first step: times to it say nothing."
    evaluated = dataset["evaluated_step"].values
    gap = int(np.diff(evaluated).max(initial=0))
    if gap > 1:
        yield f"Times to the target are rounded up to the next evaluation, up to {gap} steps later."
