"""What the sparsifiers share that send entries of each worker's own choice: values with their positions."""

from torch import Tensor

from ..decoded import RaggedSparse, Sparse
from ..indices import Coding, decode_indices, encode_indices, indices_bytes
from ..payload import HEADER_BYTES, Payload, Ragged


def sparse_payload(entries: Sparse | RaggedSparse, coding: Coding) -> Payload:
    """Return the payload of some entries: their values, then their positions."""
    return Payload((entries.values, encode_indices(entries.indices, entries.size, coding)))


def read_sparse(payload: Payload, size: int, coding: Coding) -> Sparse | RaggedSparse:
    """Undo :func:`sparse_payload` for a unit of ``size`` values."""
    values, coded = payload.buffers
    if isinstance(values, Ragged):
        indices = decode_indices(coded, values.lengths, size, coding)
        assert isinstance(indices, Ragged)
        return RaggedSparse(values, indices, size)
    positions = decode_indices(coded, [values.shape[1]] * len(values), size, coding)
    assert isinstance(positions, Tensor)
    return Sparse(values, positions, size)


def sparse_bytes(count: float, size: int, itemsize: int, coding: Coding) -> float:
    """Return the bytes of a payload of ``count`` entries, header included."""
    return HEADER_BYTES + count * itemsize + indices_bytes(count, size, coding)
