"""The sign family against its definitions: scales, means, votes and momentum."""

import numpy as np
import pytest
import torch
from torch import nn

from gradwire.compressors.base import SchemeError, State, Turn
from gradwire.compressors.quantizers.signs import OneBit, ScaledSign, SignSGD, Signum
from gradwire.compressors.spec import parse_scheme


def turn(workers: int = 1) -> Turn:
    return Turn(1, 0, "u", tuple(range(workers)), workers)


def bits_of(packed: torch.Tensor, size: int) -> list[int]:
    return [packed[0, i // 8].item() >> (i % 8) & 1 for i in range(size)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1, 13, 70_001])
def test_scaled_sign_sends_signs_and_the_mean_magnitude(size, dtype, values):
    x = values(1, size, dtype=dtype)
    x[0, 0] = -0.0
    payload, sent, _ = ScaledSign().encode(x, State(), turn())
    mean = np.abs(x.double().numpy()).mean()
    assert payload.fixed(0).item() == pytest.approx(mean, rel=torch.finfo(dtype).eps)
    assert bits_of(payload.fixed(1), size) == (x[0] >= 0).int().tolist()
    assert payload.row_bytes == [dtype.itemsize + (size + 7) // 8]
    scale = payload.fixed(0).item()
    assert sent.dense(x[0])[0].tolist() == [scale if v >= 0 else -scale for v in x[0].tolist()]


def test_scaled_sign_error_is_what_karimireddy_et_al_say(values):
    """||C(x) - x||^2 = (1 - ||x||_1^2 / (n ||x||_2^2)) ||x||_2^2."""
    x = values(1, 500, dtype=torch.float64)
    _, sent, _ = ScaledSign().encode(x, State(), turn())
    delta = x.abs().sum() ** 2 / (500 * x.square().sum())
    error = (sent.dense(x[0]) - x).square().sum() / x.square().sum()
    assert float(error) == pytest.approx(1 - float(delta), rel=1e-12)


def test_scaled_sign_error_bound_is_attained():
    x = torch.zeros(1, 10, dtype=torch.float64)
    x[0, 3] = -2.0
    _, sent, _ = ScaledSign().encode(x, State(), turn())
    assert float((sent.dense(x[0]) - x).square().sum()) / 4 == pytest.approx(ScaledSign().error_bound((10,)))


def test_huge_values_have_a_finite_mean_magnitude():
    x = torch.full((1, 70_000), -3e38)
    _, sent, _ = ScaledSign().encode(x, State(), turn())
    assert torch.equal(sent.dense(x[0]), x)


# -------------------------------------------------------------------------------------------------------------- one bit


@pytest.mark.parametrize(("means", "shape"), [("column", (30, 41)), ("column", (6, 3, 2, 2)), ("unit", (30, 41))])
def test_one_bit_sends_the_means_of_either_sign(means, shape, values):
    x = values(2, *shape, dtype=torch.float64)
    x[1, 0] = 0.0
    payload, sent, _ = OneBit(means).encode(x, State(), turn(2))
    found = sent.dense(x[0].reshape(-1)).view(2, shape[0], -1).numpy()
    for row, out in zip(x.view(2, shape[0], -1).numpy(), found, strict=True):
        columns = [np.ones_like(row, bool)] if means == "unit" else []
        for j in range(row.shape[1] if means == "column" else 0):
            mask = np.zeros_like(row, bool)
            mask[:, j] = True
            columns.append(mask)
        for column in columns:
            for chosen in (column & (row < 0), column & (row >= 0)):
                if chosen.any():
                    assert np.allclose(out[chosen], row[chosen].mean(), rtol=1e-14, atol=1e-16)
    columns = 1 if means == "unit" else x[0, 0].numel()
    assert payload.row_bytes == [16 * columns + (x[0].numel() + 7) // 8] * 2


def test_one_bit_bound_is_attained():
    x = torch.zeros(1, 10, 1, dtype=torch.float64)
    x[0, 3] = 2.0
    _, sent, _ = OneBit().encode(x, State(), turn())
    error = float((sent.dense(x[0].reshape(-1)) - x.view(1, -1)).square().sum()) / 4
    assert error == pytest.approx(OneBit().error_bound((10, 1)))


def test_regression_the_complement_of_a_mask_in_bytes_is_no_mask():
    """``~mask`` of 0 and 1 in uint8 is 255 and 254: GRACE decodes the negative entries 255 times too large."""
    x = torch.tensor([[1.0, 2.0, -3.0, -5.0]])
    payload, _, _ = OneBit().encode(x, State(), turn())
    assert OneBit().decode(payload, (4,), turn()).dense(x[0]).tolist() == [[1.5, 1.5, -4.0, -4.0]]


# ---------------------------------------------------------------------------------------------------------------- votes


def test_the_majority_decides_and_a_tie_moves_nothing(exchange):
    x = torch.tensor([[3.0, -1, 0, 5], [2.0, -1, 0, -5], [-9.0, -1, -4, 5], [-9.0, 1e9, -4, 5]])
    outcome, log = exchange("signsgd", x)
    assert outcome.mean.tolist() == [0, -1, 0, 1]
    assert outcome.sent.dense(x[0]).tolist() == [[1, -1, 1, 1], [1, -1, 1, -1], [-1, -1, -1, 1], [-1, 1, -1, 1]]
    assert [c.sent_bytes for c in log.collectives] == [(8 + 1,) * 4]
    assert exchange("signsgd", x[:3])[0].mean.tolist() == [1, -1, 1, 1]


def test_signum_votes_by_its_momentum(exchange, values):
    state, momentum = None, np.zeros((3, 50))
    for step in range(6):
        x = values(3, 50, seed=step, dtype=torch.float64)
        outcome, _ = exchange(Signum(0.8), x, state, step)
        state, momentum = outcome.state, 0.8 * momentum + 0.2 * x.numpy()
        np.testing.assert_allclose(state.elements["momentum"].numpy(), momentum, rtol=1e-13, atol=1e-15)
        votes = np.where(momentum >= 0, 1, -1)
        assert np.array_equal(outcome.mean.numpy(), np.sign(votes.sum(0)))


def test_signum_without_momentum_is_signsgd(exchange, values):
    x = values(4, 30)
    assert torch.equal(exchange(Signum(0.0), x)[0].mean, exchange(SignSGD(), x)[0].mean)


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {}])
def test_signum_refuses_a_second_momentum(options):
    weights = [nn.Parameter(torch.zeros(1))]
    sgd = torch.optim.SGD(weights, lr=0.1, **options)
    if options:
        with pytest.raises(
            SchemeError, match=r"^signum\(momentum=0.9\): SGD has momentum of its own; take one without"
        ):
            parse_scheme("signum").check_optimizer(sgd)
    else:
        parse_scheme("signum").check_optimizer(sgd)
    with pytest.raises(SchemeError, match=r"Adam has momentum"):
        parse_scheme("signum").check_optimizer(torch.optim.Adam(weights))


@pytest.mark.parametrize("text", ["ef(signsgd)", "ef(signum)"])
def test_error_feedback_refuses_signs_without_a_scale(text):
    with pytest.raises(SchemeError, match=r"error feedback needs the mean of what the workers sent"):
        parse_scheme(text).init((5,), 1, torch.zeros(5))
