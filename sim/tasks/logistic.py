"""L2-regularised logistic regression on the breast cancer data of Wisconsin (diagnostic): 569 examples, 30 features."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from torch import Tensor, nn
from torch.nn import functional

from .base import Model, Split, Splits, TaskError
from .convex import Constants, Convex

DATA = Path(__file__).with_name("data") / "wdbc.csv.gz"
DIMENSION = 31
HELD_OUT = 57
GRADIENT_NORM = 1e-12

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Logistic(Convex):
    """Minimise f(w) = mean of ln(1 + exp(-y x^T w)) + regularisation/2 ||w||^2 over w [31].

    A batch is features x [B, 31] (float32) and labels y [B] (float32): +1 malignant, -1 benign. Features are
    standardised with the training split's means and deviations; the last column is the constant 1, so the last weight
    is the bias, and is regularised like the others. 455 examples train, 57 validate and 57 test, malignant ones in the
    same proportion in each. The metric is the accuracy, 0 to 1; the suboptimality is a training loss minus
    ``constants().optimum_value``.

    Parameters
    ----------
    regularisation : float
        Weight of the penalty, above 0; by default about one over the number of training examples.

    Raises
    ------
    TaskError
        If the regularisation is not a finite number above 0.
    """

    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    regularisation: float = 0.002

    def __post_init__(self) -> None:
        if not (self.regularisation > 0 and math.isfinite(self.regularisation)):
            raise TaskError("regularisation", self.regularisation, "should be a finite number above 0")

    def splits(self) -> Splits:
        """Read and standardise the data."""
        table = np.loadtxt(DATA, delimiter=",", skiprows=1)
        features, malignant = table[:, :-1], table[:, -1]
        train = len(table) - 2 * HELD_OUT
        # Exactly rounded sums, so that the data and its digest are the same on every machine.
        mean = np.array([math.fsum(column) / train for column in features[:train].T])
        centred = features - mean
        variance = np.array([math.fsum(column**2) / train for column in centred[:train].T])
        inputs = np.column_stack([centred / np.sqrt(variance), np.ones(len(table))])
        tensors = [torch.from_numpy(array.astype(np.float32)) for array in (inputs, 2 * malignant - 1)]
        bounds = (slice(train), slice(train, train + HELD_OUT), slice(train + HELD_OUT, None))
        return Splits(*(Split(tuple(tensor[part] for tensor in tensors)) for part in bounds))

    def model(self) -> nn.Module:
        """Return the linear model at w = 0: features [B, 31] to scores [B]."""
        return _Linear(DIMENSION)

    def loss(self, model: Model, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the regularised mean logistic loss in nats, a scalar."""
        return self.measure(model, batch)[0]

    def measure(self, model: Model, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the regularised mean logistic loss and the accuracy; a score of 0 counts as wrong."""
        features, labels = batch
        margins = labels * model(features)
        # A linear model gives its weights when it is asked for the scores of the unit vectors.
        weights = model(torch.eye(features.shape[-1], dtype=features.dtype, device=features.device))
        loss = self.regularisation / 2 * weights.square().sum() - functional.logsigmoid(margins).mean()
        return loss, (margins > 0).double().mean()

    def constants(self) -> Constants:
        """Return the constants, of the float32 data in float64 arithmetic.

        L = lambda_max(X^T X) / (4 n) + regularisation, as the logistic function's slope is at most 1/4, and
        mu = regularisation, as the slope vanishes far out. The optimum has a gradient norm below 1e-12.

        Raises
        ------
        TaskError
            If the regularisation is too small for that.
        """
        features, labels = (tensor.numpy().astype(np.float64) for tensor in self.splits().train.tensors)
        rows = features * labels[:, None]
        optimum = self._newton(rows)
        margins = rows @ optimum
        value = np.logaddexp(0, -margins).mean() + self.regularisation / 2 * (optimum @ optimum)
        gradients = self.regularisation * optimum - expit(-margins)[:, None] * rows
        return Constants(
            smoothness=float(np.linalg.norm(rows, 2) ** 2 / (4 * len(rows)) + self.regularisation),
            strong_convexity=self.regularisation,
            optimum=torch.from_numpy(optimum),
            optimum_value=float(value),
            gradient_noise=float((gradients**2).sum(axis=1).mean()),
        )

    def _newton(self, rows: Array) -> Array:
        """Return the weights where the gradient vanishes, given the rows y_i x_i [n, d]."""

        def gradient(weights: Array) -> Array:
            return self.regularisation * weights - expit(-(rows @ weights)) @ rows / len(rows)

        weights = np.zeros(rows.shape[1])
        for _ in range(100):
            slope = gradient(weights)
            norm = np.linalg.norm(slope)
            if norm < GRADIENT_NORM:
                return weights
            curvature = expit(rows @ weights) * expit(-(rows @ weights))
            hessian = (rows.T * curvature) @ rows / len(rows) + self.regularisation * np.eye(len(weights))
            step = np.linalg.solve(hessian, slope)
            # Along a Newton step the gradient shrinks at first, so only rounding can keep a short one from it.
            scale = 1.0
            while scale > 1e-9 and np.linalg.norm(gradient(weights - scale * step)) >= norm:
                scale /= 2
            weights = weights - scale * step
        allowed = f"too small to find the optimum to a gradient norm of {GRADIENT_NORM}"
        raise TaskError("regularisation", self.regularisation, allowed)


class _Linear(nn.Module):
    """Scores x^T w for a weight vector w [d], all zeros at first."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(dimension))

    def forward(self, features: Tensor) -> Tensor:
        return features @ self.weights
