"""What the sparsifiers share that send entries of each worker's own choice: values with their positions."""

from torch import Tensor

from ..decoded import RaggedSparse, Sparse
from ..indices import Coding, decode_indices, encode_indices, indices_bytes
from ..payload import HEADER_BYTES, Buffer, Payload, Ragged


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
    return Sparse(values, read_positions(coded, len(values), values.shape[1], size, coding), size)


def read_positions(coded: Buffer, rows: int, count: int, size: int, coding: Coding) -> Tensor:
    """Read ``count`` positions of each row as ``[R, count]``, be their code of fixed length or not."""
    positions = decode_indices(coded, [count] * rows, size, coding)
    return positions.flat.view(rows, count) if isinstance(positions, Ragged) else positions


def sparse_bytes(count: float, size: int, itemsize: int, coding: Coding) -> float:
    """Return the bytes of a payload of ``count`` entries, header included."""
    return HEADER_BYTES + count * itemsize + indices_bytes(count, size, coding)
