"""Which figures a sweep has: those that make sense for its axes."""

import re
from collections.abc import Mapping, Sequence

import xarray as xr
from matplotlib.figure import Figure

from ..comparison import is_uncompressed
from .axes import Point, numeric_axes
from .bands import reduced
from .breakeven import Branch
from .curves import along_axis, over_workers
from .frontiers import frontier, phases_at_point
from .maps import speedup_map, winner_map

_ORDER = ("bandwidth", "workers", "cost", "latency", "density")
"""The first of these that a sweep has lies horizontally in all of its maps; other axes come after these."""
_LEAST = 3
"""A map needs so many values of each axis."""


def sweep_figures(
    dataset: xr.Dataset,
    at: Point | None = None,
    break_even: Mapping[tuple[str, str, str], Sequence[Branch]] | None = None,
) -> dict[str, Figure]:
    """Draw every figure that makes sense for the axes of a sweep; without an uncompressed scheme there is no speed-up.

    Parameters
    ----------
    dataset : xarray.Dataset
        A sweep.
    at : mapping, optional
        Where the axes that a figure does not draw lie; by default factor 1 of the cost, and the middle one of any other
        axis. An axis that a figure draws is drawn whole.
    break_even : mapping, optional
        By (scheme, x, y): the line on which its speed-up is 1, in SI, in place of what :func:`speedup_map` draws by
        default.

    Returns
    -------
    dict of str to Figure
        By the name of the file.

    Raises
    ------
    InputError
        If ``at`` names an axis that the sweep does not have, or a value that is not on it.
    """
    dataset = reduced(dataset)
    given, lines = dict(at or {}), dict(break_even or {})
    names = [str(name) for name in dataset["scheme"].values]
    axes = sorted(numeric_axes(dataset), key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    long = [name for name in axes if dataset.sizes[name] >= _LEAST]
    figures = {"step-phases": phases_at_point(dataset, given)}
    target, everywhere = "target" in dataset.attrs, _without(given, "density")
    figures["frontier-time"] = frontier(dataset, "time_to_target_s" if target else "run_s", everywhere)
    figures["frontier-bytes"] = frontier(dataset, "bytes_to_target" if target else "sent_bytes", everywhere)
    compared = "step_speedup" in dataset
    for x in axes if compared else ():
        figures[f"speedup-against-{_slug(x)}"] = along_axis(dataset, x, _without(given, x))
    if "workers" in axes:
        figures["scaling"] = over_workers(dataset, _without(given, "workers"))
    for x, y in ((long[0], other) for other in long[1:]):
        rest = _without(given, x, y)
        figures[f"winner-{_slug(x)}-{_slug(y)}"] = winner_map(dataset, x, y, _without(rest, "density"))
        for scheme in names:
            if compared and not is_uncompressed(scheme):
                name = f"speedup-{_slug(scheme)}-{_slug(x)}-{_slug(y)}"
                figures[name] = speedup_map(dataset, scheme, x, y, rest, lines.get((scheme, x, y)))
    return figures


def _without(at: Point, *names: str) -> Point:
    """Return the values of the other axes."""
    return {name: value for name, value in at.items() if name not in names}


def _slug(text: str) -> str:
    """Return a text as a part of a file's name.

    >>> _slug("ef(topk(density))"), _slug("training.batch_size")
    ('ef-topk-density', 'training-batch_size')
    """
    return re.sub(r"[^\w]+", "-", text).strip("-")
