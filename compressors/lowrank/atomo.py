"""ATOMO: atoms of each worker's gradient, sampled at random with the probabilities of least variance."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor

from ..base import Codec, Passes, Shape, State, Turn, check_range
from ..decoded import Decoded, Dense, Factors, RaggedSparse
from ..indices import indices_bytes
from ..keys import Purpose, stream
from ..payload import HEADER_BYTES, SIZE_BYTES, Payload, Ragged
from ..sparsifiers.sparse import read_sparse, sparse_payload
from ..sparsifiers.waterfill import probabilities
from ..threads import one_thread


@dataclass(frozen=True)
class Atomo(Codec):
    """Write x as a sum of orthonormal atoms, lambda_i a_i, and send lambda_i / p_i and a_i with probability p_i.

    The p_i are those of least variance that add up to the budget: min(1, c |lambda_i|) (Algorithm 1). Each worker draws
    its own atoms, so the payloads are gathered.

    Parameters
    ----------
    budget : float
        What a worker sends on average, above 0; lower compresses more and adds variance. Where a unit has no more
        atoms than that, all are sent.
    basis : {"singular", "elements", "cosine"}
        Atoms of a unit of shape (a, ...), seen as a matrix of a x b: u_i v_i^T of its singular value decomposition,
        which travel as a + b + 1 values; its entries; or the waves of an orthonormal discrete cosine transform (DCT-II)
        of all its n values. Of the last two a value and an index of ceil(log2 n) bits travel.
    unit : {"atoms", "bytes"}
        What the budget counts: atoms, or the bytes of a worker's payload for a unit in the gradient's own dtype.

    Notes
    -----
    Differences from the paper: its Fourier basis is named but not specified; the real cosine transform needs no pairs
    of conjugates. A vector is a single singular atom and travels dense. The authors' code cuts p = min(1, s lambda_i /
    sum) at once, which spends less than the budget, and draws again when nothing was drawn, which is biased; neither is
    done here. Entries are drawn with 53 random bits. Singular values and waves are computed on the CPU.

    References
    ----------
    .. [1] Wang, Sievert, Liu, Charles, Papailiopoulos, Wright. *ATOMO: Communication-efficient Learning via Atomic
       Sparsification*, NeurIPS 2018, https://arxiv.org/abs/1806.04090
    """

    budget: float = 3.0
    basis: Literal["singular", "elements", "cosine"] = "singular"
    unit: Literal["atoms", "bytes"] = "atoms"

    name = "atomo"
    title = "atoms (singular vectors, entries or waves) sampled with least variance"
    paper = "Wang et al. 2018, arXiv 1806.04090"
    collective = "all-gather"
    examples = ("atomo(budget=2.5, basis=elements)", "atomo(budget=40, basis=cosine, unit=bytes)")

    def __post_init__(self) -> None:
        check_range(self, "budget", "above 0", self.budget > 0)

    @property
    def unbiased(self) -> bool:
        return True

    @property
    def varying(self) -> bool:
        return True

    @property
    def granularity(self) -> frozenset[str]:
        """Return layers only for the singular basis: a bucket or a model has no shape to factorise."""
        return frozenset({"layer"}) if self.basis == "singular" else super().granularity

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    def _dense(self, shape: Shape) -> bool:
        """Return whether a unit has one singular atom only."""
        return self.basis == "singular" and (len(shape) == 1 or min(shape[0], prod(shape[1:])) == 1)

    def _atoms(self, shape: Shape) -> int:
        """Return how many atoms a unit has."""
        return min(shape[0], prod(shape[1:])) if self.basis == "singular" else prod(shape)

    @property
    def _fixed_bytes(self) -> int:
        """The bytes of the header and of the announced lengths of the buffers."""
        return HEADER_BYTES + SIZE_BYTES * (1 if self.basis == "singular" else 2)

    def _atom_bytes(self, shape: Shape, itemsize: int) -> float:
        """Return what an atom takes on the wire."""
        if self.basis == "singular":
            return (shape[0] + prod(shape[1:]) + 1) * itemsize
        return itemsize + indices_bytes(8, prod(shape), "log2") / 8

    def expected_atoms(self, shape: Shape, itemsize: int = 4) -> float:
        """Return s, the expected number of atoms that a worker sends of a unit without zeros among them.

        Raises
        ------
        SchemeError
            If a budget in bytes is not above what the header and the lengths of the buffers take.
        """
        if self.unit == "atoms":
            return min(self.budget, self._atoms(shape))
        room = self.budget - self._fixed_bytes
        check_range(self, "budget", f"above {self._fixed_bytes} bytes, which header and lengths take", room > 0)
        return min(room / self._atom_bytes(shape, itemsize), self._atoms(shape))

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        self.expected_atoms(shape)
        return State()

    def error_bound(self, shape: Shape) -> float:
        """Return r / s - 1 for r atoms, attained where all are equally large (32-bit values)."""
        if self._dense(shape):
            return 0.0
        return self._atoms(shape) / self.expected_atoms(shape) - 1

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        """Return the expectation for a unit without zeros among its atoms."""
        if self._dense(shape):
            return HEADER_BYTES + prod(shape) * itemsize
        return self._fixed_bytes + self.expected_atoms(shape, itemsize) * self._atom_bytes(shape, itemsize)

    def passes(self, shape: Shape) -> Passes:
        """Return a rough count: a full decomposition reads the matrix about 4 r times, a transform log2 n times."""
        if self._dense(shape):
            return Passes(0, 0, 0)
        kept = self.expected_atoms(shape) / self._atoms(shape)
        if self.basis == "singular":
            return Passes(encode=4 * self._atoms(shape), between=0, decode=2)
        waves = prod(shape).bit_length() if self.basis == "cosine" else 0
        return Passes(encode=waves + 4, between=0, decode=waves + 3 * kept)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        shape, flat = tuple(x.shape[1:]), x.reshape(len(x), -1)
        if self._dense(shape):
            return Payload((flat,)), Dense(flat), state
        budget = self.expected_atoms(shape, x.element_size())
        if self.basis == "singular":
            payload = self._sample_factors(flat.view(len(x), shape[0], -1), budget, turn)
        else:
            coefficients = _waves(flat) if self.basis == "cosine" else flat
            payload = self._sample_entries(coefficients, budget, turn)
        return payload, self.decode(payload, shape, turn), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        if self._dense(shape):
            return Dense(payload.fixed(0))
        if self.basis == "singular":
            return _read_factors(payload, shape)
        entries = read_sparse(payload, prod(shape), "log2")
        if self.basis == "elements":
            return entries
        flat = entries.values.flat if isinstance(entries.values, Ragged) else entries.values
        return Dense(_values(entries.dense(flat.new_empty(prod(shape)))))

    def _sample_entries(self, coefficients: Tensor, budget: float, turn: Turn) -> Payload:
        """Draw entries of each row."""
        p = probabilities(coefficients.abs(), budget)
        drawn = [places.nonzero()[:, 0] for places in _draw(p, turn)]
        values = [(row[i].double() / q[i]).to(row.dtype) for row, q, i in zip(coefficients, p, drawn, strict=True)]
        return sparse_payload(RaggedSparse(Ragged.of(values), Ragged.of(drawn), coefficients.shape[1]), "log2")

    def _sample_factors(self, matrices: Tensor, budget: float, turn: Turn) -> Payload:
        """Draw singular triplets of each matrix; each is written as u, sigma / p, v."""
        # A power of two takes nothing from any value, and keeps the decomposition from under- and overflowing.
        exponent = torch.frexp(matrices.abs().amax((1, 2), keepdim=True)).exponent
        with one_thread():
            u, sigma, vt = torch.linalg.svd(torch.ldexp(matrices, -exponent), full_matrices=False)
        p = probabilities(sigma, budget)
        rows = []
        for r, drawn in enumerate(_draw(p, turn)):
            i = drawn.nonzero()[:, 0]
            scale = torch.ldexp((sigma[r, i].double() / p[r, i]).to(sigma), exponent[r, 0])
            rows.append(torch.cat([u[r].T[i], scale[:, None], vt[r, i]], dim=1).reshape(-1))
        return Payload((Ragged.of(rows),))


def _draw(p: Tensor, turn: Turn) -> Tensor:
    """Return [R, n] independent draws, True with probability p, from each worker's own stream."""
    rows = []
    for row, rank in zip(p.cpu().numpy(), turn.ranks, strict=True):
        draws = np.random.Generator(stream(turn.seed, Purpose.ATOMS, turn.step, turn.unit, rank))
        rows.append(draws.random(len(row)) < row)
    return torch.from_numpy(np.stack(rows)).to(p.device)


def _read_factors(payload: Payload, shape: Shape) -> Factors:
    """Return the matrices that sampled triplets add up to."""
    rows = payload.buffers[0]
    assert isinstance(rows, Ragged)
    a, b = shape[0], prod(shape[1:])
    triplets = [rows.row(r).view(-1, a + b + 1) for r in range(len(rows.lengths))]
    return Factors(
        tuple((t[:, :a] * t[:, a : a + 1]).T for t in triplets), tuple(t[:, a + 1 :].contiguous() for t in triplets)
    )


def _waves(rows: Tensor) -> Tensor:
    """Return each row's coefficients in the orthonormal discrete cosine transform."""
    return _transform(rows, fft.dct)


def _values(rows: Tensor) -> Tensor:
    """Undo :func:`_waves`."""
    return _transform(rows, fft.idct)


def _transform(rows: Tensor, transform: object) -> Tensor:
    # Row by row: a batch might be vectorised across rows, and so round differently.
    assert callable(transform)
    found: list[NDArray[np.floating]] = [transform(row, norm="ortho") for row in rows.cpu().numpy()]
    return torch.from_numpy(np.stack(found)).to(rows)
