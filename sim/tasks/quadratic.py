"""A strongly convex quadratic with noise per example, of which everything is known in closed form."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct
from torch import Tensor, nn

from .base import Model, Split, Splits, TaskError
from .convex import Constants, Convex

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Quadratic(Convex):
    """Minimise f(x) = 1/2 (x - x*)^T A (x - x*) over x [dimension], from x = 0.

    Up to a constant that is 1/2 x^T A x - b^T x with b = A x*, but its least value is 0, so a loss is a suboptimality
    and keeps its precision near the optimum. The entries of x* are standard normal. A training example is a vector xi_i
    with the loss f(x) + xi_i^T (x - x*), hence the gradient A (x - x*) + xi_i. The xi_i are normal vectors in pairs of
    opposite sign, so they sum to exactly zero, scaled so that the mean of ||xi_i||^2 is noise^2. Validation and test
    are one example each, without noise: evaluated there, the loss is f(x) itself.

    Parameters
    ----------
    dimension : int
        d, at least 2.
    smoothness, strong_convexity : float
        L and mu, the largest and the smallest eigenvalue of A, 0 < mu <= L; the others lie between in geometric
        progression.
    rotated : bool
        If true, the eigenvectors of A are a discrete cosine basis with random signs, so a gradient's entries are alike
        in size. If false, A is diagonal, with its entries falling from L to mu.
    noise : float
        sigma, the root of the mean square of ||xi_i||, at least 0.
    examples : int
        Number of training examples, even.
    data_seed : int
        Draws x*, the signs and the noise; not the run's seed.

    Raises
    ------
    TaskError
        If a parameter is out of its range.
    """

    metric: ClassVar[str] = "suboptimality"
    higher_is_better: ClassVar[bool] = False

    dimension: int = 100
    smoothness: float = 1.0
    strong_convexity: float = 0.01
    rotated: bool = True
    noise: float = 1.0
    examples: int = 1000
    data_seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "dimension": (self.dimension >= 2, "should be a whole number of at least 2"),
            "smoothness": (0 < self.smoothness < math.inf, "should be a finite number above 0"),
            "strong_convexity": (
                0 < self.strong_convexity <= self.smoothness,
                f"should be above 0 and at most the smoothness, {self.smoothness}",
            ),
            "noise": (0 <= self.noise < math.inf, "should be a finite number of at least 0"),
            "examples": (self.examples >= 2 and self.examples % 2 == 0, "should be an even number of at least 2"),
            "data_seed": (0 <= self.data_seed < 2**64, "should be a whole number from 0 to 2**64 - 1"),
        }
        for key, (fine, allowed) in checks.items():
            if not fine:
                raise TaskError(key, getattr(self, key), allowed)

    def splits(self) -> Splits:
        """Draw the noise: each split has one tensor [m, dimension] of float32."""
        half = self._generator("noise").standard_normal((self.examples // 2, self.dimension))
        half *= self.noise / math.sqrt(np.square(half).sum(axis=1).mean())
        noise = torch.from_numpy(np.concatenate([half, -half]).astype(np.float32))
        silent = Split((torch.zeros(1, self.dimension),))
        return Splits(Split((noise,)), silent, silent)

    def model(self) -> nn.Module:
        """Return the model at x = 0: noise [B, dimension] to losses [B]."""
        eigenvalues = np.geomspace(self.smoothness, self.strong_convexity, self.dimension).astype(np.float32)
        return _Quadratic(eigenvalues, self._optimum(), self._basis() if self.rotated else None)

    def loss(self, model: Model, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the mean loss of a batch, a scalar; below 0 where the noise outweighs f."""
        return model(*batch).mean()

    def constants(self) -> Constants:
        """Return the constants; L, mu and sigma^2 hold to the rounding of the data to float32, the optimum exactly."""
        return Constants(
            smoothness=self.smoothness,
            strong_convexity=self.strong_convexity,
            optimum=torch.from_numpy(self._optimum().astype(np.float64)),
            optimum_value=0.0,
            gradient_noise=self.noise**2,
        )

    def _optimum(self) -> Floats:
        return self._generator("optimum").standard_normal(self.dimension).astype(np.float32)

    def _basis(self) -> Floats:
        """Return an orthogonal matrix [d, d] with A's eigenvectors as rows."""
        signs = self._generator("signs").choice([-1.0, 1.0], self.dimension)
        return np.asarray(dct(np.eye(self.dimension), axis=0, norm="ortho") * signs, np.float32)

    def _generator(self, purpose: str) -> np.random.Generator:
        """Return a stream of its own for each purpose, so that one field does not change what another draws."""
        stream = ("optimum", "signs", "noise").index(purpose)
        return np.random.Generator(np.random.Philox(key=[self.data_seed, stream]))


class _Quadratic(nn.Module):
    """Losses 1/2 (x - x*)^T A (x - x*) + xi^T (x - x*) for a parameter vector x [d] and noise xi [B, d]."""

    eigenvalues: Tensor
    optimum: Tensor
    basis: Tensor | None

    def __init__(self, eigenvalues: Floats, optimum: Floats, basis: Floats | None) -> None:
        super().__init__()
        self.register_buffer("eigenvalues", torch.from_numpy(eigenvalues))
        self.register_buffer("optimum", torch.from_numpy(optimum))
        self.register_buffer("basis", None if basis is None else torch.from_numpy(basis))
        self.position = nn.Parameter(torch.zeros(len(optimum)))

    def forward(self, noise: Tensor) -> Tensor:
        offset = self.position - self.optimum
        # Eigenvalues and eigenvectors apart keep the least eigenvalue's relative precision, which A itself would lose.
        along = offset if self.basis is None else self.basis @ offset
        return (self.eigenvalues * along.square()).sum() / 2 + noise @ offset
