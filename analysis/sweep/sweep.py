"""The sweep itself: what has to be trained, trained once, and timed at every point."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...compressors.errors import InputError
from ...compressors.spec import parse_scheme
from ...compressors.wirelog import StepLog
from ...sim.experiment import Experiment
from ...sim.step.workload import Workload
from ...sim.tasks.base import Task
from ...sim.timing import Timer
from ...sim.training.order import Order, candidates, chosen
from ...sim.training.plan import Training, source_digest
from ...sim.training.store import Store
from ...sim.training.train import check
from ...sim.training.trajectory import Trajectory
from ...sim.training.tuning import Tuning, best_rate
from .executors import Executor
from .grid import AT_ONCE, Grid, Index
from .played import Plans, Play, Played, Points, Times, read_times

Progress = Callable[[str, int, int], None]
"""Called with what is done ("training", "timing"), how many are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One scheme at one point of all axes that change more than a number of the closed form.

    Attributes
    ----------
    label : int
        The scheme's position.
    index : tuple of int
        The point; 0 at axes of which many values are evaluated at once.
    experiment : Experiment
        At that point.
    order : Order
        The trajectory, at the learning rate that was found best.
    whole : bool
        Whether it stands for all values of those axes, and not for one point alone.
    """

    label: int
    index: Index
    experiment: Experiment
    order: Order
    whole: bool


@dataclass(eq=False)
class Sweep:
    """A sweep's result.

    Attributes
    ----------
    grid : Grid
    task : Task
        At the first point.
    cells : list of Cell
    trajectories : dict of str to Trajectory
        By the key of their order.
    at_once : tuple of int
        Positions of the axes of which many values were evaluated at once.
    points : dict of tuple to Points
        What these axes stand for, by a cell's index.
    played : dict of Cell to Played
        For the cells that were evaluated in closed form.
    times : dict of Cell to Times
    """

    grid: Grid
    task: Task
    cells: list[Cell]
    trajectories: dict[str, Trajectory]
    at_once: tuple[int, ...]
    points: dict[Index, Points]
    played: dict[Cell, Played] = field(default_factory=dict)
    times: dict[Cell, Times] = field(default_factory=dict)


def sweep(
    grid: Grid, store: Store, executor: Executor, progress: Progress | None = None, search: Path | None = None
) -> Sweep:
    """Train each distinct trajectory of a grid once, and time it at every point.

    Parameters
    ----------
    grid : Grid
    store : Store
        What is trained, and what the event engine played, is put in as soon as it is there; a sweep that is ended and
        begun again goes on from it.
    executor : Executor
        Runs trainings and played steps.
    progress : callable, optional
    search : Path, optional
        Where a task of one's own is looked up first.

    Raises
    ------
    InputError
        One line for each fault of the grid, before any training.
    """
    return _Run(grid, store, executor, progress or (lambda *_: None), search).result()


def _adapts(scheme: str) -> bool:
    """Return whether what a scheme sends depends on the cluster, so that every cluster has a trajectory of its own."""
    return "cost=cluster" in scheme


class _Run:
    """A sweep under way."""

    def __init__(self, grid: Grid, store: Store, executor: Executor, progress: Progress, search: Path | None) -> None:
        self.grid, self.store, self.executor, self.progress, self.search = grid, store, executor, progress, search
        self.timings = Store(store.folder / "timings")
        self.experiments: dict[Index, Experiment] = {}
        self.tasks: dict[str, tuple[Task, str]] = {}
        self.timers: dict[str, Timer] = {}
        self.trajectories: dict[str, Trajectory] = {}
        self.plans: dict[tuple[str, tuple[StepLog, ...], int], Plans] = {}
        self.fast = tuple(i for i, axis in enumerate(grid.axes) if axis.key in AT_ONCE)

    def result(self) -> Sweep:
        """Do everything."""
        wanted = list(self._wanted())
        self._check(wanted)
        self.store.prepare()
        tuning = self._tuning()
        tried = {
            (label, index): {rate: self._order(experiment, label, plan) for rate, plan in rates}
            for label, index, experiment in wanted
            if (rates := list(candidates(experiment.training, tuning)))
        }
        self._train(order for orders in tried.values() for order in orders.values())
        cells = []
        for label, index, experiment in wanted:
            orders = tried.get((label, index))
            rate = None if orders is None else self._best(experiment, orders)
            order = self._order(experiment, label, chosen(experiment.training, tuning, rate))
            cells.append(Cell(label, index, experiment, order, whole=not _adapts(self.grid.schemes[label])))
        self._train(cell.order for cell in cells)
        found = Sweep(self.grid, self._task(self.grid.first)[0], cells, self.trajectories, self.fast, {})
        self._time(found)
        return found

    def _best(self, experiment: Experiment, orders: Mapping[float, Order]) -> float:
        """Return the learning rate that serves a scheme best."""
        tried = {rate: self.trajectories[order.key] for rate, order in orders.items()}
        return best_rate(tried, experiment.training.target, self._task(experiment)[0].higher_is_better)

    # ------------------------------------------------------------------------------------------------ what is wanted

    def _wanted(self) -> Iterable[tuple[int, Index, Experiment]]:
        """Yield each scheme at each point of the axes that it cannot be evaluated at many values of at once."""
        slow = [i for i in range(len(self.grid.axes)) if i not in self.fast]
        for i in self.fast:  # each value is looked at once, so that mistakes come before training
            for index in self.grid.indices([i]):
                self._experiment(index)
        for label, text in enumerate(self.grid.schemes):
            varied = range(len(self.grid.axes)) if _adapts(text) else slow
            for index in self.grid.indices(varied):
                yield label, index, self._experiment(index)

    def _experiment(self, index: Index) -> Experiment:
        if index not in self.experiments:
            self.experiments[index] = self.grid.experiment(index)
        return self.experiments[index]

    def _tuning(self) -> Tuning:
        """Return the tuning, on the first of the sweep's seeds if it names none."""
        first = self.grid.first
        seed = first.training.seed if first.tune.seed is None else first.tune.seed
        return first.tune.model_copy(update={"seed": seed})

    def _task(self, experiment: Experiment) -> tuple[Task, str]:
        """Return an experiment's task and its digest."""
        key = experiment.task.model_dump_json()
        if key not in self.tasks:
            task = experiment.make_task(self.search)
            self.tasks[key] = task, task.digest()
        return self.tasks[key]

    def _timer(self, experiment: Experiment) -> Timer:
        """Return what times an experiment's trajectories; one for all that differ in what is learnt only."""
        learnt = {"seed", "learning_rate", "target"}
        key = experiment.model_dump_json(exclude={"title": True, "schemes": True, "tune": True, "training": learnt})
        if key not in self.timers:
            task, digest = self._task(experiment)
            self.timers[key] = Timer(experiment, task, self._workload(experiment, task, digest))
        return self.timers[key]

    def _workload(self, experiment: Experiment, task: Task, digest: str) -> Workload:
        """Return how long a worker computes; counting a model's arithmetic takes seconds, so the result is stored."""
        depends = experiment.model_dump_json(include={"training": {"batch_size", "dtype"}, "workload": True})
        key = hashlib.sha256(f"{digest} {depends} {source_digest('sim')}".encode()).hexdigest()
        text = self.timings.get_text(key)
        if text is None:
            text = Timer(experiment, task).workload.to_json()
            self.timings.put_text(key, text)
        return Workload.from_json(text)

    def _order(self, experiment: Experiment, label: int, plan: Training) -> Order:
        task, digest = self._task(experiment)
        return Order.of(task, digest, experiment.schemes[label], plan)

    # ------------------------------------------------------------------------------------------------ what is trained

    def _train(self, orders: Iterable[Order]) -> None:
        """Have every trajectory that is not there yet trained, and store it."""
        distinct = {order.key: order for order in orders if order.key not in self.trajectories}
        if not distinct:
            return
        missing = []
        for key, order in distinct.items():
            stored = self.store.get(key)
            if stored is None:
                missing.append(order)
            else:
                self.trajectories[key] = stored
        done = len(distinct) - len(missing)
        self.progress("training", done, len(distinct))
        for order, text in self.executor.run(Order.train_elsewhere, missing):
            trajectory = Trajectory.from_json(text)
            self.store.put(order.key, trajectory)
            self.trajectories[order.key] = trajectory
            done += 1
            self.progress("training", done, len(distinct))

    def _check(self, wanted: Iterable[tuple[int, Index, Experiment]]) -> None:
        """Find out before any training what cannot be trained, timed or compared."""
        for i, axis in enumerate(self.grid.axes):
            found, _ = self.grid.coordinate(i)
            if len(set(found)) < len(found):
                raise InputError(f"axes.{axis.name} = {list(axis.values)}: a value comes twice")
        seen, metrics = set(), {}
        for label, _, experiment in wanted:
            task, model = self._task(experiment)[0], experiment.workload.model
            metrics[task.metric, task.higher_is_better] = f"{experiment.task.name} by {task.metric}"
            plan = experiment.training.model_dump_json(exclude={"seed", "learning_rate"})
            key = id(task), model, experiment.schemes[label], plan
            if key in seen:
                continue
            seen.add(key)
            scheme = parse_scheme(experiment.schemes[label])
            check(task, scheme, experiment.training)
            if model is not None:
                Timer(experiment, task).check(scheme)
        if len(metrics) > 1:
            told = ", ".join(metrics.values())
            raise InputError(f"axes: tasks with metrics of their own cannot be compared with each other: {told}")

    # -------------------------------------------------------------------------------------------------- what is timed

    def _time(self, found: Sweep) -> None:
        """Time every cell: all its points at once, or each one by itself where that is not possible."""
        plays: dict[Cell, Play] = {}
        cells, found.cells = found.cells, []
        for cell in cells:
            played = self._played(cell) if cell.whole else None
            points = found.points.get(cell.index) or self._points(cell.index) if played is not None else None
            if played is None or points is None:
                for single in self._singles(cell):
                    found.cells.append(single)
                    plays[single] = Play(single.experiment, single.order, "")
            else:
                found.cells.append(cell)
                found.points[cell.index] = points
                found.played[cell] = played
                found.times[cell] = played.times(points)
        keys = {cell: play.key for cell, play in plays.items()}
        texts = self._play({keys[cell]: play for cell, play in plays.items()})
        found.times.update({cell: read_times(texts[key]) for cell, key in keys.items()})

    def _played(self, cell: Cell) -> Played | None:
        """Return what times a cell at many points at once, None if nothing does."""
        timing = cell.experiment.timing
        chosen_by_size = "auto" in timing.algorithms.values()  # NCCL's choice depends on the cluster's numbers
        if timing.engine == "events" or chosen_by_size:
            return None
        timer, trajectory = self._timer(cell.experiment), self.trajectories[cell.order.key]
        key = trajectory.scheme, trajectory.logs, id(timer)  # seeds often send the same, and then cost the same
        if key not in self.plans:
            self.plans[key] = tuple(timer.plans(trajectory))
        plans = self.plans[key]
        played = Played(trajectory, plans, timer.cost_source(plans[0][1]))
        return None if played.one_point_only() else played

    def _points(self, index: Index) -> Points | None:
        """Return the points for which a cell stands, on an array axis for each axis of many values at once."""
        base = Points.of(self._experiment(index))
        if base is None:
            return None
        numbers = base._asdict()
        for place, i in enumerate(self.fast):
            field = AT_ONCE[self.grid.axes[i].key]
            shape = [1] * len(self.fast)
            shape[place] = -1
            column = []
            for value in range(self.grid.shape[i]):
                point = Points.of(self._experiment((*index[:i], value, *index[i + 1 :])))
                if point is None:
                    return None
                column.append(getattr(point, field))
            numbers[field] = np.reshape(column, shape)
        shape = [self.grid.shape[i] for i in self.fast]
        return Points(*(np.broadcast_to(value, shape) for value in numbers.values()))

    def _singles(self, cell: Cell) -> Iterable[Cell]:
        """Yield a cell for each of its points."""
        if not cell.whole:
            yield cell
            return
        for fast in self.grid.indices(self.fast):
            index = tuple(fast[i] if i in self.fast else own for i, own in enumerate(cell.index))
            yield Cell(cell.label, index, self._experiment(index), cell.order, whole=False)

    def _play(self, plays: Mapping[str, Play]) -> dict[str, str]:
        """Return the times of every play, by its key; what is not stored is played."""
        texts = {key: text for key in plays if (text := self.timings.get_text(key)) is not None}
        missing = {
            key: replace(play, trajectory=self.trajectories[play.order.key].to_json())
            for key, play in plays.items()
            if key not in texts
        }
        keys = {id(play): key for key, play in missing.items()}
        if plays:
            self.progress("timing", len(texts), len(plays))
        for play, text in self.executor.run(Play.run, list(missing.values())):
            self.timings.put_text(keys[id(play)], text)
            texts[keys[id(play)]] = text
            self.progress("timing", len(texts), len(plays))
        return texts
