"""Orders: trajectories that are wanted, each under the key of all that it depends on, to be trained wherever."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...compressors.errors import InputError
from ...compressors.spec import parse_scheme
from ..tasks.base import Task
from .plan import Training, fingerprint
from .spread import train_spread
from .store import Store
from .train import Progress, find_device
from .trajectory import Trajectory
from .tuning import Tuning


@dataclass(frozen=True, eq=False)
class Order:
    """A trajectory that is wanted.

    Attributes
    ----------
    task : Task
    scheme : str
        Its text form.
    plan : Training
    key : str
        The trajectory's fingerprint, under which it is stored.
    """

    task: Task
    scheme: str
    plan: Training
    key: str

    @classmethod
    def of(cls, task: Task, digest: str, scheme: str, plan: Training) -> "Order":
        """Return an order; ``digest`` is the task's, which takes a while to compute."""
        return cls(task, scheme, plan, fingerprint(digest, scheme, plan, find_device(plan.device)))

    def train(self, progress: Progress | None = None) -> Trajectory:
        """Train what is wanted, in this process and those that the plan asks for."""
        return train_spread(self.task, parse_scheme(self.scheme), self.plan, progress)

    def train_elsewhere(self) -> str:
        """Train on a machine that may differ from the one that ordered; return the trajectory as JSON text.

        Raises
        ------
        InputError
            If this machine would give another result: other versions, another source or another device.
        """
        here = fingerprint(self.task.digest(), self.scheme, self.plan, find_device(self.plan.device))
        if here != self.key:
            raise InputError(
                "a worker of the sweep has another gradwire, torch, numpy, Python or device than the machine that "
                "started it, so its results would differ; install the same everywhere, and set training.device"
            )
        return self.train().to_json()

    def fetch(self, store: Store, progress: Progress | None = None) -> Trajectory:
        """Return the trajectory from a store, or train it and put it there."""
        trajectory = store.get(self.key)
        if trajectory is None:
            trajectory = self.train(progress)
            store.put(self.key, trajectory)
        if progress is not None:
            progress(self.plan.steps)
        return trajectory


def candidates(plan: Training, tuning: Tuning) -> Iterator[tuple[float, Training]]:
    """Yield each learning rate that is tried, with its plan; nothing if there is no choice to make.

    Trials are not recorded: only the training that counts is.
    """
    seed = plan.seed if tuning.seed is None else tuning.seed
    for rate in tuning.learning_rates if len(tuning.learning_rates) > 1 else ():
        yield rate, plan.model_copy(update={"learning_rate": rate, "seed": seed, "record": "none"})


def chosen(plan: Training, tuning: Tuning, rate: float | None) -> Training:
    """Return the plan with the learning rate that was found best, or the only one that was asked for."""
    only = tuning.learning_rates[0] if len(tuning.learning_rates) == 1 else plan.learning_rate
    return plan.model_copy(update={"learning_rate": only if rate is None else rate})
