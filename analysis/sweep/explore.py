"""What the explorer of a sweep's report can be moved to: every trained point, and steps between them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from ...compressors.spec import with_parameter
from ...sim.experiment import Experiment
from ...sim.timing import Timer
from ..comparison import is_uncompressed
from ..exploration import Candidate, Curve, Point
from .answer import fills
from .grid import Index
from .sweep import Cell, Sweep


def candidates(sweep: Sweep) -> list[Candidate]:
    """Return each scheme at each density and number of workers, and untrained ones between those that were trained.

    Other axes that change what is learnt stay at their first value.
    """
    groups: dict[tuple[int, Index], list[Cell]] = {}
    for cell in sweep.cells:
        if _shown(sweep, cell):
            index = tuple(0 if axis.name == "seed" else i for axis, i in zip(sweep.grid.axes, cell.index, strict=True))
            groups.setdefault((cell.label, index), []).append(cell)
    trained: dict[tuple[str, float | None, int], Candidate] = {}
    for (label, _), cells in groups.items():
        one = _trained(sweep, label, cells)
        trained.setdefault((one.scheme, one.density, one.workers), one)
    return [*trained.values(), *_between(sweep, list(trained.values()))]


def start_point(sweep: Sweep) -> Point | None:
    """Return where the sliders are at first: at factor 1 of the cost, and in the middle of the other axes.

    None if nothing was evaluated in closed form.
    """
    shown = [cell.index for cell in sweep.cells if _shown(sweep, cell)]
    if not shown:
        return None
    axes = sweep.grid.axes
    middle = {
        axis.name: axis.values.index(1) if axis.name == "cost" and 1 in axis.values else len(axis.values) // 2
        for axis in axes
    }
    wanted = {"density", "workers"}
    slow = tuple(middle[axis.name] if axis.name in wanted else 0 for axis in axes)
    if slow not in shown:  # what is in the middle had to be played event by event
        slow = shown[0]
    place = tuple(middle[axes[i].name] for i in sweep.at_once)
    bandwidth_bps, latency_s, launch_s, factor = (float(np.asarray(value)[place]) for value in sweep.points[slow])
    density = sweep.grid.axis("density")
    at = None if density is None else float(density.values[slow[axes.index(density)]])
    workers = sweep.grid.experiment(slow).training.workers
    return Point(bandwidth_bps, latency_s, launch_s, factor, at, workers)


def _shown(sweep: Sweep, cell: Cell) -> bool:
    """Return whether a cell has a closed form and is at the first value of all axes that the explorer has not."""
    others = ("density", "workers", "seed")
    elsewhere = any(i and axis.name not in others for axis, i in zip(sweep.grid.axes, cell.index, strict=True))
    return cell.whole and not elsewhere


def _density(sweep: Sweep, label: int, index: Index) -> float | None:
    """Return the density of a scheme at a point, None if it has none that is swept."""
    for axis, i in zip(sweep.grid.axes, index, strict=True):
        if axis.name == "density" and fills(axis.name, sweep.grid.labels[label]):
            return float(axis.values[i])
    return None


def _trained(sweep: Sweep, label: int, cells: Sequence[Cell]) -> Candidate:
    """Return a scheme with its trainings, one a seed."""
    played = [sweep.played[cell] for cell in cells]
    curves = []
    for one in played:
        evaluations = one.trajectory.evaluations
        final = float(evaluations.test_metric[-1]) if len(evaluations.steps) else np.nan
        curves.append(
            Curve(
                evaluations.steps,
                evaluations.validation_metric,
                one.trajectory.status,
                final if np.isfinite(final) else None,
            )
        )
    name = sweep.grid.labels[label]
    return Candidate(
        scheme=name,
        uncompressed=is_uncompressed(name),
        density=_density(sweep, label, cells[0].index),
        workers=cells[0].experiment.training.workers,
        variants=tuple(zip(*([plan for _, plan in one.plans] for one in played), strict=True)),
        curves=tuple(curves),
    )


def _between(sweep: Sweep, trained: Sequence[Candidate]) -> Iterator[Candidate]:
    """Yield schemes at densities and numbers of workers between those that were trained, of which only steps are known.

    One between each two neighbours on a logarithmic scale.
    """
    grid = sweep.grid
    densities = _middles(sorted({one.density for one in trained if one.density is not None}), whole=False)
    workers = _middles(sorted({one.workers for one in trained}), whole=True)
    everywhere = sorted({one.workers for one in trained}) + workers
    known = sorted({one.density for one in trained if one.density is not None})
    for label, text in enumerate(grid.labels):
        own = [None] if not fills("density", text) or not known else [*known, *densities]
        for density in own:
            for number in everywhere:
                if density in (None, *known) and number not in workers:
                    continue
                yield _untrained(sweep, label, density, int(number))


def _middles(values: Sequence[float], whole: bool) -> list[float]:
    """Return what lies between neighbours, geometrically, to two digits or as whole numbers."""
    found = []
    for low, high in pairwise(values):
        middle = round((low * high) ** 0.5) if whole else float(f"{(low * high) ** 0.5:.2g}")
        if low < middle < high:
            found.append(middle)
    return found


def _untrained(sweep: Sweep, label: int, density: float | None, workers: int) -> Candidate:
    """Return a scheme of which only the step is known."""
    grid = sweep.grid
    first: Experiment = grid.first
    experiment = first.model_copy(update={"training": first.training.model_copy(update={"workers": workers})})
    name, text = grid.labels[label], first.schemes[label]
    if density is not None:
        text = with_parameter(text, "density", density) or text
    plans = Timer(experiment, sweep.task).untrained(text)
    return Candidate(name, is_uncompressed(name), density, workers, tuple((plan,) for plan in plans), ())
