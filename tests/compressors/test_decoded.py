"""What decoded payloads do without becoming dense, against the dense matrix that they stand for."""

import pytest
import torch
from torch import Tensor

from gradwire.compressors.decoded import Aligned, Block, Decoded, Dense, LowRank, Nothing, RaggedSparse, Scaled, Sparse
from gradwire.compressors.payload import Ragged

ROWS, SIZE = 3, 12


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def placed(values: Tensor | list[Tensor], indices: list[list[int]]) -> Tensor:
    """Put each row's values at its places, one by one."""
    rows = torch.zeros(ROWS, SIZE)
    for row, found, where in zip(rows, values, indices, strict=True):
        for value, index in zip(found, where, strict=True):
            row[index] = value
    return rows


def kinds() -> dict[str, tuple[Decoded, Tensor, list[list[int]]]]:
    """Return for each kind an instance, the matrix that it means and the entries that it holds."""
    values = draw(ROWS, 4)
    values[1, 2] = 0.0  # an entry is sent although its value is 0
    own = [[1, 4, 5, 11], [0, 4, 7, 8], [2, 3, 4, 10]]
    same = [[0, 3, 4, 9]] * ROWS
    inside, around = [[4, 5, 6, 7]] * ROWS, [[10, 11, 0, 1]] * ROWS
    everything = [list(range(SIZE))] * ROWS
    few: list[list[int]] = [[1, 4, 11], [], [2, 3, 4, 10]]
    some = placed([values[0, :3], values[1, :0], values[2]], few)
    ragged = RaggedSparse(
        Ragged.of([values[0, :3], values[1, :0], values[2]]),
        Ragged.of([torch.tensor(places, dtype=torch.int64) for places in few]),
        SIZE,
    )
    dense, narrow = draw(ROWS, SIZE), draw(ROWS, SIZE).bfloat16()
    left, right = draw(3, 2), draw(ROWS, 4, 2)
    levels = torch.arange(ROWS * SIZE).view(ROWS, SIZE).remainder(7).sub(3).to(torch.int8)
    scales = draw(ROWS, 3).abs()
    scaled = torch.stack([levels[:, i] * scales[:, i // 5] for i in range(SIZE)], dim=1)
    return {
        "nothing": (Nothing(ROWS, SIZE), torch.zeros(ROWS, SIZE), [[]] * ROWS),
        "dense": (Dense(dense), dense, everything),
        "dense in bf16": (Dense(narrow), narrow.float(), everything),
        "sparse": (Sparse(values, torch.tensor(own), SIZE), placed(values, own), own),
        "aligned": (Aligned(values, torch.tensor(same[0]), SIZE), placed(values, same), same),
        "ragged sparse": (ragged, some, few),
        "block": (Block(values, 4, SIZE), placed(values, inside), inside),
        "block that wraps": (Block(values, 10, SIZE), placed(values, around), around),
        "low rank": (LowRank(left, right), torch.stack([(left @ r.T).flatten() for r in right]), everything),
        "scaled": (Scaled(levels, scales, 5), scaled, everything),
    }


@pytest.fixture(params=kinds())
def kind(request: pytest.FixtureRequest) -> tuple[Decoded, Tensor, list[list[int]]]:
    return kinds()[request.param]


def test_dense(kind):
    decoded, matrix, _ = kind
    rows = decoded.dense(torch.zeros(SIZE))
    assert torch.equal(rows, matrix)
    rows.add_(1)  # a new tensor, which its owner may change
    assert torch.equal(decoded.dense(torch.zeros(SIZE)), matrix)


def test_dense_in_another_dtype(kind):
    decoded, matrix, _ = kind
    rows = decoded.dense(torch.zeros(SIZE, dtype=torch.float64))
    assert rows.dtype == torch.float64
    torch.testing.assert_close(rows, matrix.double(), rtol=2.0**-23, atol=0)  # one product in float32 or float64


def test_rows_are_added_in_order(kind):
    decoded, matrix, _ = kind
    out = draw(SIZE)
    expected = ((out + matrix[0]) + matrix[1]) + matrix[2]
    assert decoded.add_to_(out) is out
    assert torch.equal(out, expected)


def test_total_is_the_sum_from_zero(kind):
    decoded, matrix, _ = kind
    assert torch.equal(decoded.total(torch.ones(SIZE)), (matrix[0] + matrix[1]) + matrix[2])


def test_residual_is_the_difference_bit_for_bit(kind):
    decoded, matrix, _ = kind
    p = draw(ROWS, SIZE) * 3
    expected = p - matrix
    assert torch.equal(decoded.residual_of_(p), expected)


def test_residual_of_what_was_sent_whole_is_zero():
    """The rows may be the very memory from which they are taken."""
    p = draw(ROWS, SIZE)
    kept = p.clone()
    decoded = Dense(p)
    assert not decoded.residual_of_(p).any()
    assert torch.equal(decoded.dense(p[0]), kept)


def test_clearing_empties_what_was_sent_be_it_zero_or_not(kind):
    decoded, _, entries = kind
    x = torch.ones(ROWS, SIZE)
    cleared = decoded.clear_(x)
    for row, held in zip(cleared, entries, strict=True):
        assert row.tolist() == [0.0 if index in held else 1.0 for index in range(SIZE)]


@pytest.mark.parametrize("kind", ["sparse", "ragged sparse"])
def test_regression_rows_are_added_one_by_one_so_that_repeated_indices_have_an_order(kind, monkeypatch):
    """A GPU adds what one call gives for the same index in any order; within a row no index is repeated."""
    indices: list[list[int]] = []
    real = Tensor.index_add_

    def told(self, dim, index, source, **options):
        indices.append(index.tolist())
        return real(self, dim, index, source, **options)

    monkeypatch.setattr(Tensor, "index_add_", told)
    decoded, expected, places = kinds()[kind]
    torch.testing.assert_close(decoded.total(torch.zeros(SIZE)), expected.sum(0))
    assert indices == places
