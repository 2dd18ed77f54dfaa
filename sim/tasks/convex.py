"""What convex tasks share: the constants that theory speaks of, known exactly."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from .base import Task


@dataclass(frozen=True, eq=False)
class Constants:
    """The constants of a training objective f, the mean of the loss over the training split.

    Attributes
    ----------
    smoothness : float
        L: the gradient of f is L-Lipschitz.
    strong_convexity : float
        mu: f - mu/2 ||x||^2 is convex.
    optimum : Tensor, float64 [d]
        x*, where f is least.
    optimum_value : float
        f* = f(x*), so that f(x) - f* is the suboptimality of x.
    gradient_noise : float
        sigma^2: the mean over training examples i of ||grad f_i(x*) - grad f(x*)||^2, the second moment of the noise
        of a single example's gradient at the optimum.
    """

    smoothness: float
    strong_convexity: float
    optimum: Tensor
    optimum_value: float
    gradient_noise: float


class Convex(Task):
    """A task with a strongly convex objective over a single parameter vector [d]."""

    @abstractmethod
    def constants(self) -> Constants:
        """Return the constants of the training objective, computed in float64."""
