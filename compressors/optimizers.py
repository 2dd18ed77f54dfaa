"""Optimizers that belong to a scheme: what comes back from the exchange is no gradient for them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class OneBitAdam(Optimizer):
    """Adam whose variance is frozen after some steps, from when on it is given the averaged momentum.

    Goes with the scheme :class:`gradwire.compressors.onebitadam.OneBitAdamScheme` of the same ``freeze_step`` and first
    beta, and with no other. Before the freeze it is Adam without bias correction.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        As for any optimizer of torch.
    lr : float
        Learning rate, at least 0.
    betas : pair of float
        Decay of the momentum and of the variance, in [0, 1).
    eps : float
        Added to the root of the variance, above 0.
    freeze_step : int
        The steps before the freeze; one that updates the variance is needed.

    Raises
    ------
    ValueError
        If a value is out of range.

    References
    ----------
    .. [1] Tang et al. *1-bit Adam: Communication Efficient Large-Scale Training with Adam's Convergence Speed*, ICML
       2021, Algorithm 1, https://arxiv.org/abs/2102.02888
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        freeze_step: int = 1000,
    ) -> None:
        beta1, beta2 = betas
        checks = {
            f"lr = {lr} must be at least 0": lr >= 0,
            f"betas = {betas} must be in [0, 1)": 0 <= beta1 < 1 and 0 <= beta2 < 1,
            f"eps = {eps} must be above 0": eps > 0,
            f"freeze_step = {freeze_step} must be at least 1": freeze_step >= 1,
        }
        for message, good in checks.items():
            if not good:
                raise ValueError(message)
        super().__init__(params, {"lr": lr, "betas": (beta1, beta2), "eps": eps, "freeze_step": freeze_step})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; before the freeze ``grad`` is a gradient, after it a momentum."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        lr, (beta1, beta2), eps = group["lr"], group["betas"], group["eps"]
        state, given = self.state[parameter], parameter.grad
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter))
        momentum, variance = state["exp_avg"], state["exp_avg_sq"]
        if state["step"] < group["freeze_step"]:
            momentum.mul_(beta1).add_(given, alpha=1 - beta1)
            variance.mul_(beta2).addcmul_(given, given, value=1 - beta2)
        else:
            momentum.copy_(given)
        state["step"] += 1
        parameter.addcdiv_(momentum, variance.sqrt().add_(eps), value=-lr)
