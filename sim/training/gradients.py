"""Each virtual worker's own gradient: all workers in one batched computation, or one after the other.

Normalisation layers normalise with each worker's own batch. Their running statistics follow rank 0, as those of
DistributedDataParallel do, which broadcasts rank 0's buffers before every forward pass.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from ...compressors.errors import InputError
from ..tasks.base import Task
from .dropout import dropout_key, key_dropout

Batch = tuple[Tensor, ...]
Mode = Literal["auto", "batched", "looped"]

MEMORY_BYTES = 2**30
"""Rows are computed in chunks whose gradients and activations are estimated to stay below this."""


class Gradients(NamedTuple):
    """Losses ``[W]`` and, by parameter name, gradients ``[W, *shape]``."""

    losses: Tensor
    rows: dict[str, Tensor]


class GradientError(InputError):
    """The model cannot be differentiated in the way that was asked for."""


class StackedGradients:
    """Computes the gradients of W workers that share a model's parameters.

    Parameters
    ----------
    task : Task
        Gives the loss.
    model : nn.Module
        In training mode; its dropout modules are replaced by keyed ones.
    ranks : tuple of int
        The workers' global ranks.
    seed : int
    mode : {"auto", "batched", "looped"}
        ``batched`` uses ``torch.func.vmap``; ``looped`` takes one worker after the other, for modules that vmap cannot
        batch; ``auto`` finds out on a first batch.
    sample : tuple of Tensor, each [B, ...]
        A worker's batch, to find that out and to size chunks.
    """

    def __init__(
        self, task: Task, model: nn.Module, ranks: tuple[int, ...], seed: int, mode: Mode, sample: Batch
    ) -> None:
        self._task, self._model, self._ranks, self._seed = task, model, ranks, seed
        self._dropouts = key_dropout(model)
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.mode: Literal["batched", "looped"] = "looped"
        self.reason = "as asked for"
        if mode != "looped":
            self._choose(mode, sample)
        self._chunk = _chunk_rows(self._parameters, sample, len(ranks))
        self._buffers_of_rank_0: dict[str, Tensor] = {}

    def _choose(self, mode: Mode, sample: Batch) -> None:
        """Try the batched computation on two copies of a worker's batch, without side effects."""
        try:
            before = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
            self._batched(tuple(torch.stack([t, t]) for t in sample), self._keys(0, self._ranks[:1] * 2))
            self.mode = "batched"
        except (RuntimeError, NotImplementedError, ValueError) as error:
            self.reason = str(error).strip().splitlines()[0]
            if mode == "batched":
                message = f"training.gradients = 'batched': vmap cannot batch this model ({self.reason})"
                raise GradientError(f"{message}; use 'looped' or 'auto'") from error
        finally:
            self._restore(before)

    def __call__(self, batches: Batch, step: int) -> Gradients:
        """Compute losses and gradients.

        Parameters
        ----------
        batches : tuple of Tensor, each [W, B, ...]
            Each worker's own batch, on the model's device.
        step : int
            Keys the dropout masks.
        """
        if self.mode == "looped":
            return self._looped(batches, step)
        keys = self._keys(step, self._ranks)
        parts = []
        for start in range(0, len(self._ranks), self._chunk):
            rows = slice(start, start + self._chunk)
            chunk_keys = {name: key[rows] for name, key in keys.items()}
            gradients, buffers = self._batched(tuple(t[rows] for t in batches), chunk_keys)
            parts.append(gradients)
            if start == 0:
                first = {name: buffer[0] for name, buffer in buffers.items() if name not in keys}
        self._restore(first)
        if len(parts) == 1:
            return parts[0]
        joined = {name: torch.cat([part.rows[name] for part in parts]) for name in self._parameters}
        return Gradients(torch.cat([part.losses for part in parts]), joined)

    # -------------------------------------------------------------------------------------------------------- batched

    def _batched(self, batches: Batch, keys: dict[str, Tensor]) -> tuple[Gradients, dict[str, Tensor]]:
        """Compute gradients of all rows at once; return them and every row's buffers after the forward pass."""
        rows = len(batches[0])
        parameters = {name: p.detach() for name, p in self._parameters.items()}
        frozen = {name: p.detach() for name, p in self._model.named_parameters() if name not in self._parameters}
        buffers = {name: b.expand(rows, *b.shape) for name, b in self._model.named_buffers() if name not in keys}

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Any]:
            own = {name: buffer.clone() for name, buffer in buffers.items()}  # what a normalisation layer writes to
            state = {**parameters, **frozen, **own}

            def model(*inputs: Tensor) -> Tensor:
                result: Tensor = functional_call(self._model, state, inputs)
                return result

            return self._task.loss(model, batch), own

        per_worker: Callable[..., Any] = vmap(grad_and_value(loss, has_aux=True), in_dims=(None, 0, 0))
        gradients, (losses, after) = per_worker(parameters, {**buffers, **keys}, batches)
        return Gradients(losses, gradients), after

    def _keys(self, step: int, ranks: tuple[int, ...]) -> dict[str, Tensor]:
        """Return a key for each dropout module and worker, by the name of the module's buffer."""
        device = next(iter(self._parameters.values())).device
        return {
            f"{name}.key": torch.tensor([dropout_key(self._seed, step, name, rank) for rank in ranks], device=device)
            for name in self._dropouts
        }

    # --------------------------------------------------------------------------------------------------------- looped

    def _looped(self, batches: Batch, step: int) -> Gradients:
        """Compute one row after the other with ordinary autograd."""
        rows = {name: p.new_zeros(len(self._ranks), *p.shape) for name, p in self._parameters.items()}
        losses = []
        before = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        after_first = before
        for row, rank in enumerate(self._ranks):
            self._restore(before)
            for name in self._dropouts:
                self._model.get_submodule(name).key.fill_(dropout_key(self._seed, step, name, rank))  # type: ignore[operator]
            for name, parameter in self._parameters.items():
                parameter.grad = rows[name][row]  # backward adds into the row itself
            with seeded(dropout_key(self._seed, step, "", rank), batches[0].device):
                loss = self._task.loss(self._model, tuple(t[row] for t in batches))
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            if row == 0:
                after_first = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        self._restore(after_first)
        return Gradients(torch.stack(losses), rows)

    def _restore(self, buffers: dict[str, Tensor]) -> None:
        """Set the model's buffers."""
        own = dict(self._model.named_buffers())
        with torch.no_grad():
            for name, value in buffers.items():
                own[name].copy_(value)


@contextmanager
def seeded(key: int, device: torch.device) -> Iterator[None]:
    """Let what draws from torch's global generator depend on ``key`` alone, and leave the generator as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(key)
        yield


def _chunk_rows(parameters: dict[str, nn.Parameter], sample: Batch, rows: int) -> int:
    """Return how many workers to compute at once."""
    per_row = sum(p.numel() * p.element_size() for p in parameters.values())
    per_row += 20 * sum(t.numel() * t.element_size() for t in sample)  # activations: a guess, only to bound memory
    return max(1, min(rows, MEMORY_BYTES // per_row))
