"""Curvature: the largest eigenvalue of a loss's Hessian, by Lanczos' method with products of Hessian and vector."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor, nn

from ...compressors.keys import Purpose, stream
from ..tasks.base import Split, Task

EXAMPLES = 256
"""A sample of at most so many examples stands for the training split."""
TOLERANCE = 1e-2
"""The relative accuracy at which the eigenvalue is taken."""

Floats = NDArray[np.float64]


class Curvature(NamedTuple):
    """The largest absolute eigenvalue, and ||H v - lambda v|| of its unit vector: within that there surely is one."""

    value: float
    error: float


UNKNOWN = Curvature(float("nan"), float("nan"))


def sample(split: Split, seed: int) -> tuple[Tensor, ...]:
    """Return a batch of at most :data:`EXAMPLES` examples, drawn without replacement and the same for every step."""
    generator = np.random.Generator(stream(seed, Purpose.SAMPLING, 0, "curvature"))
    chosen = np.sort(generator.permutation(len(split))[:EXAMPLES])
    return split.take(torch.from_numpy(chosen))


def largest_curvature(task: Task, model: nn.Module, batch: tuple[Tensor, ...], seed: int) -> Curvature:
    """Return the largest |eigenvalue| of the Hessian of a batch's loss, over the trained parameters.

    Parameters
    ----------
    task : Task
    model : nn.Module
        As it is; its mode counts, and what it has in ``grad`` stays.
    batch : tuple of Tensor, each [m, ...]
    seed : int
        Draws the start vector.

    Returns
    -------
    Curvature
        NaN where the loss is not finite or Lanczos' method does not converge.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = [p.numel() for p in parameters]
    loss = task.loss(model, batch)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    if not all(bool(torch.isfinite(g).all()) for g in gradients):
        return UNKNOWN
    bent = [g for g in gradients if g.requires_grad]  # a gradient that is constant has no second derivative
    like = parameters[0]

    def product(vector: Floats) -> Floats:
        """Return H v."""
        parts = torch.from_numpy(np.ascontiguousarray(vector.reshape(-1))).to(like).split(sizes)  # type: ignore[no-untyped-call]
        along = [v.view_as(p) for v, p, g in zip(parts, parameters, gradients, strict=True) if g.requires_grad]
        found = torch.autograd.grad(bent, parameters, along, retain_graph=True, materialize_grads=True)
        result: Floats = torch.cat([h.reshape(-1) for h in found]).double().cpu().numpy()
        return result

    start = np.random.Generator(stream(seed, Purpose.START, 0, "curvature")).standard_normal(sum(sizes))
    if not bent or not (first := product(start)).any():
        return Curvature(0.0, 0.0)
    if not np.isfinite(first).all():
        return UNKNOWN
    if len(start) == 1:
        return Curvature(abs(float(first[0] / start[0])), 0.0)
    return _largest(LinearOperator((len(start),) * 2, product, dtype=np.float64), start)


def _largest(hessian: "LinearOperator[np.float64]", start: Floats) -> Curvature:
    """Return the largest |eigenvalue| of a symmetric operator."""
    try:
        # A basis of 10 vectors, which hold no more than the gradients of 10 workers.
        values, vectors = eigsh(hessian, k=1, which="LM", v0=start, tol=TOLERANCE, ncv=min(10, len(start)), maxiter=100)
    except ArpackError:
        return UNKNOWN
    vector = vectors[:, 0]
    error = float(np.linalg.norm(hessian.matvec(vector) - values[0] * vector))
    return Curvature(abs(float(values[0])), error)
