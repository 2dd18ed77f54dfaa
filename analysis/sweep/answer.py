"""The answer of a sweep: where compression pays, with what, and what each scheme achieved, as numbers and sentences."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr

from ...sim.units import format_bandwidth
from ..comparison import is_uncompressed, proxy_of
from ..formatting import format_ratio, format_target, is_share, significant
from ..verdict import HARM, TIE
from .axes import SCHEME
from .seeds import over_seeds


@dataclass(frozen=True)
class Achieved:
    """What a scheme with its parameters achieved, on average over the seeds.

    Attributes
    ----------
    scheme : str
        Its label.
    at : dict of str to value
        The axes that change what is learnt, and where on them it is; those alone that concern the scheme.
    uncompressed : bool
    sent_bytes : float
        Mean bytes that a worker hands over in a step.
    learning_rate : float
    steps_to_target : float or None
        None if not every seed got there; ``reached`` is the share of those that did.
    reached : float
    final_metric, final_low, final_high : float or None
        Test metric, and the ends of its 95 % confidence interval; None for one seed alone.
    harms : bool
        Whether the final metric is worse than the uncompressed schemes' mean by more than chance would excuse.
    slowest, fastest : float or None
        The least and the greatest speed-up over all settings.
    pays, settings : int
        At how many of how many settings it is faster than the best uncompressed scheme.
    """

    scheme: str
    at: dict[str, object]
    uncompressed: bool
    sent_bytes: float
    learning_rate: float
    steps_to_target: float | None
    reached: float
    final_metric: float | None
    final_low: float | None
    final_high: float | None
    harms: bool
    slowest: float | None
    fastest: float | None
    pays: int
    settings: int

    @property
    def name(self) -> str:
        """The scheme with its parameters as far as they are axes, and the other axes that change what it learns."""
        return named(self.scheme, self.at)


@dataclass(frozen=True)
class Answer:
    """What a sweep says.

    Attributes
    ----------
    rows : tuple of Achieved
    settings : int
        Points of all axes but the seed and the schemes' own parameters.
    pays : int
        At how many of them a compressing scheme that does no harm is faster than the best uncompressed one.
    sentence : str
    notes : tuple of str
        What a reader must know to trust the numbers as far as they go.
    """

    rows: tuple[Achieved, ...]
    settings: int
    pays: int
    sentence: str
    notes: tuple[str, ...]


def answer(data: xr.Dataset) -> Answer:
    """Return what a sweep's dataset says; speed-ups are of the time to target or, without a target, of a step."""
    means = over_seeds(data)
    rows = tuple(_rows(data, means))
    best, names = _best(data, means)
    pays = best > TIE
    proxy = proxy_of(data)
    return Answer(
        rows=rows,
        settings=best.size,
        pays=int(pays.sum()),
        sentence=_sentence(data, best, names) + (f" ({proxy})" if proxy else ""),
        notes=tuple(_notes(data, rows)),
    )


def axes_of(data: xr.Dataset) -> list[str]:
    """Return the names of a sweep's axes, in order."""
    return [str(axis) for axis in np.atleast_1d(data.attrs["axes"])]


def measured_by(data: xr.Dataset) -> str:
    """Return which speed-up counts: of the time to target, or of a step where there is no target."""
    return "speedup" if "target" in data.attrs or "training.target" in axes_of(data) else "step_speedup"


def harms(means: xr.Dataset) -> xr.DataArray:
    """Return whether a scheme's final metric is worse than the uncompressed schemes' by more than chance would excuse.

    Parameters
    ----------
    means : xarray.Dataset
        A sweep's, averaged over seeds.
    """
    final = means["final_metric"]
    dense = [is_uncompressed(str(label)) for label in means["scheme"].values]
    if not any(dense):
        return xr.zeros_like(final, dtype=bool)
    reference = final.isel(scheme=np.flatnonzero(dense)).mean("scheme")
    gain = (final - reference) * (1 if means.attrs["higher_is_better"] else -1)
    return ~(gain >= -HARM * abs(reference))


def fills(axis: str, label: str) -> bool:
    """Return whether a label leaves open the parameter that an axis fills."""
    return re.search(_open_parameter(axis), label) is not None


def named(label: str, at: Mapping[str, object]) -> str:
    """Return a scheme with the parameters that its label leaves open, and other axes behind it.

    >>> named("ef(topk(density))", {"density": 0.01, "workers": 8})
    'ef(topk(density=0.01)), workers 8'
    """
    others = []
    for axis, value in at.items():
        told = _told(value)
        filled = re.sub(_open_parameter(axis), f"{axis.removeprefix(SCHEME)}={told}", label)
        others += [f"{axis} {told}"] if filled == label else []
        label = filled
    return ", ".join([label, *others])


def own_points(data: xr.Dataset, label: str, dims: Sequence[str]) -> Iterator[tuple[dict[str, int], dict[str, object]]]:
    """Yield the points of some axes at which a scheme differs: each one's place on the axes, and its name.

    On an axis of a parameter that the scheme does not have, only the first place is taken.
    """
    own = [dim for dim in dims if not _is_parameter(data, dim) or fills(dim, label)]
    for index in product(*(range(data.sizes[dim]) for dim in own)):
        at = {dim: np.asarray(data[dim].values[k]).item() for dim, k in zip(own, index, strict=True)}
        yield {**dict.fromkeys(dims, 0), **dict(zip(own, index, strict=True))}, at


def _told(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _open_parameter(axis: str) -> str:
    """Return a pattern of a scheme's parameter that a label leaves open."""
    return rf"\b{re.escape(axis.removeprefix(SCHEME))}\b(?!=)"


def _rows(data: xr.Dataset, means: xr.Dataset) -> Iterator[Achieved]:
    """Yield a row for each scheme at each point of the axes that change what it learns."""
    learnt = [str(dim) for dim in means["steps_to_target"].dims if dim != "scheme"]
    harmful = harms(means)
    for i, label in enumerate(map(str, data["scheme"].values)):
        for place, at in own_points(data, label, learnt):
            where = {"scheme": i, **place}
            yield _row(label, at, means.isel(where), bool(harmful.isel(where)), measured_by(data))


def _is_parameter(data: xr.Dataset, axis: str) -> bool:
    return str(data[axis].attrs["key"]).startswith(SCHEME)


def _row(label: str, at: dict[str, object], one: xr.Dataset, harmful: bool, by: str) -> Achieved:
    """Return the row of one scheme at one point of what it learns."""
    final, low, high = (_number(one[f"final_metric{end}"]) for end in ("", "_low", "_high"))
    speedups = one[by].values.ravel() if by in one else np.array([])
    known = speedups[np.isfinite(speedups)]
    return Achieved(
        scheme=label,
        at=at,
        uncompressed=is_uncompressed(label),
        sent_bytes=float(one["sent_bytes"]),
        learning_rate=float(one["learning_rate"]),
        steps_to_target=_number(one["steps_to_target"]),
        reached=float(one["reached"]),
        final_metric=final,
        final_low=low,
        final_high=high,
        harms=harmful,
        slowest=float(known.min()) if known.size else None,
        fastest=float(known.max()) if known.size else None,
        pays=int((known > TIE).sum()),
        settings=speedups.size,
    )


def _number(value: xr.DataArray) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None


def _best(data: xr.Dataset, means: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return at each setting the best speed-up of a compressing scheme that does no harm, 0 without any, and whose."""
    own = ["scheme", *(axis for axis in axes_of(data) if _is_parameter(data, axis))]
    compressing = [i for i, label in enumerate(data["scheme"].values) if not is_uncompressed(str(label))]
    by = measured_by(data)
    speedup = means[by] if by in means else xr.full_like(means["run_s"], np.nan)
    kept = speedup.where(~harms(means)).isel(scheme=compressing).fillna(0.0).stack(choice=own)
    names = [str(label) for label in kept["scheme"].values]
    for axis in own[1:]:
        values = kept[axis].values
        pattern = _open_parameter(axis)
        named = zip(names, values, strict=True)
        names = [re.sub(pattern, f"{axis.removeprefix(SCHEME)}={_told(value)}", name) for name, value in named]
    where = kept.argmax("choice")
    found = xr.DataArray(np.array(names, dtype=object)[where.values], dims=where.dims)
    return kept.max("choice").drop_vars(own, errors="ignore"), found


def _sentence(data: xr.Dataset, best: xr.DataArray, names: xr.DataArray) -> str:
    """Say where compression pays, by how much, and with what."""
    if "baseline" not in data:
        return "Cannot say: no uncompressed scheme (dense) was swept, so there is nothing to compare with."
    what = _what(data)
    axes = ", ".join(map(str, best.dims)) or "no axis"
    places = f"{best.size:,} setting{'s' * (best.size > 1)} ({axes})"
    pays = best > TIE
    number = int(pays.sum())
    if not number:
        top = float(best.max())
        closest = f"; at best it is {format_ratio(top)} as fast as the best uncompressed one" if top else ""
        nowhere = f"at none of the {places} does a compressing scheme that does no harm {what} first"
        return f"Do not compress: {nowhere}{closest}."
    gains = best.values[pays.values]
    often, times = Counter(names.values[pays.values].ravel().tolist()).most_common(1)[0]
    low, high = significant(float(gains.min()), 2), significant(float(gains.max()), 2)
    span = low if low == high else f"{low} to {high}"
    where = ("at all" if best.size > 1 else "at the") if number == best.size else f"at {number:,} of the"
    return (
        f"Compress {where} {places}: a compressing scheme that does no harm can {what} {span} times sooner "
        f"than the best uncompressed one, most often {often} ({times:,} of {number:,}){_limits(data, pays)}."
    )


def _what(data: xr.Dataset) -> str:
    """Say what schemes are to do first."""
    if measured_by(data) == "step_speedup":
        return "end its step"
    if "target" not in data.attrs:
        return "reach the target"
    metric = str(data.attrs["metric"])
    wanted = format_target(float(data.attrs["target"]), metric)
    return f"reach {wanted} validation {metric}" if is_share(metric) else f"reach a validation {metric} of {wanted}"


def _limits(data: xr.Dataset, pays: xr.DataArray) -> str:
    """Say up to which bandwidth it pays everywhere, and from which on nowhere."""
    if "bandwidth" not in pays.dims or pays.all() or data.sizes["bandwidth"] < 2:
        return ""
    others = [dim for dim in pays.dims if dim != "bandwidth"]
    bandwidths = data["bandwidth"].values
    order = np.argsort(bandwidths)
    everywhere, somewhere = (found.values[order] for found in (pays.all(others), pays.any(others)))
    parts = []
    if everywhere[0]:
        last = bandwidths[order][np.argmin(everywhere) - 1]
        parts.append(f"at every setting up to {format_bandwidth(last)}")
    if not somewhere[-1]:
        first = bandwidths[order][len(order) - np.argmax(somewhere[::-1])]
        parts.append(f"at none from {format_bandwidth(first)} on")
    return f"; it pays {' and '.join(parts)}" if parts else ""


def _notes(data: xr.Dataset, rows: Iterable[Achieved]) -> Iterator[str]:
    """Say what limits the numbers."""
    if "proxy" in data.attrs:
        yield (
            f"A proxy: what is learnt is that of the task {data.attrs['task']}; bytes and times of a step are those of "
            f"{data.attrs['proxy']}, which would learn otherwise."
        )
    faults = sorted({str(status) for status in data["status"].values.ravel() if status != "completed"})
    yield from (f"Some trainings {fault}." for fault in faults)
    late = [row.name for row in rows if row.reached < 1 and not row.uncompressed]
    if late and measured_by(data) == "speedup":
        yield f"The target was not reached with every seed by {'; '.join(late)}: they have no time to it."
    harmful = [row.name for row in rows if row.harms]
    if harmful:
        yield f"A worse final {data.attrs['metric']}, by more than {HARM:.0%} of it, is had with {'; '.join(harmful)}."
    grid = [float(rate) for rate in np.atleast_1d(data.attrs.get("tuned_rates", []))]
    if len(grid) > 1:
        tried = ", ".join(f"{rate:g}" for rate in grid)
        yield f"Learning rates were chosen for each row on the validation split, of {tried}."
        ends = [row.name for row in rows if row.learning_rate in (grid[0], grid[-1])]
        if ends:
            yield f"The rate is at an end of the grid for {'; '.join(ends)}: a wider grid may serve better."
    estimates = sorted(
        {str(source) for source in data["cost_source"].values if "estimate" in source or "scaled" in source}
    )
    if estimates:
        yield f"Costs of encoding and decoding rest on estimates: {'; '.join(estimates)}."
    if data.sizes.get("seed", 1) < 2:
        yield "Everything was trained from one seed: small differences of the metric may be chance."
