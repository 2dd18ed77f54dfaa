"""SIDCo: fits against scipy and closed forms, shares against exact moments and measurements, stages by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad

from gradwire.compressors.base import SchemeError, State, Turn
from gradwire.compressors.sparsifiers.sidco import MOST_STAGES, SIDCo, exponential, gamma, gpareto, threshold

FITS = ("exponential", "gpareto", "gamma")


def draws(name: str, size: int = 400_000) -> NDArray[np.float64]:
    generator = np.random.default_rng(11)
    match name:
        case "normal":
            return np.abs(generator.standard_normal(size))
        case "laplace":
            return np.abs(generator.laplace(size=size))
        case _:
            return np.abs(generator.standard_t(3, size))


def call(scheme: SIDCo, x: torch.Tensor, state: State | None = None, step: int = 0) -> tuple[list[list[int]], State]:
    state = scheme.init((x.shape[1],), len(x), x[0]) if state is None else state
    _, sent, state = scheme.encode(x, state, Turn(1, step, "u", tuple(range(len(x))), len(x)))
    return [sent.indices.row(r).tolist() for r in range(len(x))], state


# --------------------------------------------------------------------------------------------------------------- fits


@pytest.mark.parametrize("ratio", [0.25, 0.01, 1e-4])
def test_exponential_threshold_is_the_quantile_of_the_maximum_likelihood_fit(ratio):
    x = draws("student", 5000)
    _, scale = stats.expon.fit(x, floc=0)
    assert exponential(x, ratio) == pytest.approx(stats.expon.isf(ratio, scale=scale), rel=1e-12)


@pytest.mark.parametrize("name", ["normal", "laplace", "student"])
@pytest.mark.parametrize("ratio", [0.25, 0.01, 1e-4])
def test_generalised_pareto_threshold_is_the_quantile_of_the_fit_by_moments(name, ratio):
    """With mean m = s / (1 - c) and variance m^2 / (1 - 2c), c = (1 - m^2 / variance) / 2 in scipy's sign."""
    x = draws(name, 5000)
    c = (1 - x.mean() ** 2 / x.var()) / 2
    law = stats.genpareto(c, scale=x.mean() * (1 - c))
    assert (law.mean(), law.var()) == pytest.approx((x.mean(), x.var()), rel=1e-10)
    assert gpareto(x, ratio) == pytest.approx(law.isf(ratio), rel=1e-10)


@pytest.mark.parametrize("ratio", [0.25, 0.001])
def test_generalised_pareto_of_equal_mean_and_deviation_is_exponential(ratio):
    assert gpareto(np.array([0.0, 2.0]), ratio) == -math.log(ratio)
    near = np.array([0.0, 2.0 + 1e-9])  # a shape of the order of 1e-9 or smaller
    assert gpareto(near, ratio) == pytest.approx(-math.log(ratio), rel=1e-7)


@pytest.mark.parametrize("shape", [0.3, 0.7, 1.0, 1.6, 4.0])
def test_gamma_fit_is_minkas_and_close_to_maximum_likelihood(shape):
    """Minka's closed form is within 1.5 % of the maximum likelihood; the quantile follows the paper's formula."""
    x = stats.gamma.rvs(shape, scale=0.2, size=20_000, random_state=3)
    fitted, _, scale = stats.gamma.fit(x, floc=0)
    cut = gamma(x, 0.01)
    s = math.log(x.mean()) - np.log(x).mean()
    minka = (3 - s + math.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    assert minka == pytest.approx(fitted, rel=0.015)
    assert cut == pytest.approx(-(x.mean() / minka) * (math.log(0.01) + math.lgamma(minka)), rel=1e-12)
    assert x.mean() / minka == pytest.approx(scale, rel=0.015)


def test_gamma_threshold_is_exact_for_shape_one():
    """Values with ln(mean) - mean(ln) = s for which Minka's form is 1: 3 - s + sqrt((s - 3)^2 + 24 s) = 12 s."""
    s = 4 / 7  # 12 s - 3 + s = 31/7; squared 961/49 = (17/7)^2 + 96/7 = 289/49 + 672/49
    spread = math.sqrt(1 - math.exp(-2 * s))  # ln(mean) - mean(ln) of 1 - d and 1 + d is -ln(1 - d^2) / 2
    x = np.array([1 - spread, 1 + spread])
    assert gamma(x, 0.01) == pytest.approx(stats.expon.isf(0.01), rel=1e-9)


def by_stages(x: NDArray[np.float64], ratio: float, stages: int) -> float:
    """Fit scipy's exponential distribution again and again to what exceeds the last threshold."""
    cut, steps = 0.0, [0.25] + [(4 * ratio) ** (1 / (stages - 1))] * (stages - 1) if stages > 1 else [ratio]
    for step in steps:
        loc, scale = stats.expon.fit(x[x > cut], floc=cut)
        cut = float(stats.expon.isf(step, loc, scale))
    return cut


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_stages_fit_exceedances(stages):
    x = draws("normal", 20_000)
    assert threshold(x, 0.01, "exponential", stages) == pytest.approx(by_stages(x, 0.01, stages), rel=1e-10)
    assert threshold(x, 0.3, "exponential", stages) == pytest.approx(by_stages(x, 0.3, 1), rel=1e-10)


LAWS = {"normal": stats.norm(), "laplace": stats.laplace(), "student": stats.t(3)}
MEASURED = {"exponential": (1.13, 1.00, 0.66), "gpareto": (0.91, 1.00, 1.00)}
"""The share k^ / k of 1 % that 3 stages find among normal, Laplace and Student-3 values: measured on drawn samples."""


def share_of_law(law: Any, fit: str) -> float:
    """Return the share that three stages find if each is fitted to the law's exact moments, by integration."""
    cut = 0.0
    for ratio in (0.25, 0.2, 0.2):
        left = law.sf(cut)
        mean = quad(law.sf, cut, np.inf)[0] / left
        variance = quad(lambda t, c=cut: 2 * (t - c) * law.sf(t), cut, np.inf, limit=200)[0] / left - mean**2
        c = (1 - mean**2 / variance) / 2 if fit == "gpareto" else 0.0
        cut += float(stats.genpareto.isf(ratio, c, scale=mean * (1 - c)))
    return float(2 * law.sf(cut) / 0.01)


@pytest.mark.parametrize("fit", MEASURED)
@pytest.mark.parametrize("name", LAWS)
def test_shares_of_three_stages_follow_from_the_moments_and_agree_with_measurements(name, fit):
    """The grid of quantiles ends at 1 / n, which takes (1 / n)^(1/3) = 1.4 % of Student's second moment away."""
    law, expected = LAWS[name], share_of_law(LAWS[name], fit)
    grid = law.isf((np.arange(400_000) + 0.5) / 800_000)
    share = 2 * law.sf(threshold(grid, 0.01, fit, 3)) / 0.01
    assert share == pytest.approx(expected, rel=0.03 if name == "student" else 1e-3)
    assert expected == pytest.approx(dict(zip(LAWS, MEASURED[fit], strict=True))[name], abs=0.02)


def test_one_exponential_stage_on_known_means():
    """Means sqrt(2 / pi), 1 and 2 sqrt(3) / pi: the share is the tail at the mean times ln 100."""
    means = {"normal": math.sqrt(2 / math.pi), "laplace": 1.0, "student": 2 * math.sqrt(3) / math.pi}
    for name, mean in means.items():
        cut = threshold(draws(name), 0.01, "exponential", 1)
        assert cut == pytest.approx(mean * math.log(100), rel=0.01)


# -------------------------------------------------------------------------------------------------------------- stages


def test_stages_adapt_after_five_calls_for_each_worker_alone():
    """Normal values want three exponential stages, Laplace's one, Student's with 3 degrees of freedom two."""
    scheme = SIDCo(0.01)
    x = torch.from_numpy(np.stack([draws(name, 100_000) for name in LAWS]))
    state, seen = None, []
    for step in range(16):
        _, state = call(scheme, x, state, step)
        seen.append(state.rows["stages"].tolist())
    assert seen == [[1, 1, 1]] * 4 + [[2, 1, 2]] * 5 + [[3, 1, 2]] * 7
    assert state.rows["calls"].tolist() == [1, 1, 1]


def test_too_many_of_several_stages_become_fewer():
    """Generalised Pareto stages on normal values after a gamma one let 1.46 k pass, however many there are."""
    scheme, x = SIDCo(0.01, "gamma"), torch.from_numpy(draws("normal", 100_000)[None])
    _, state = call(scheme, x)
    state = State(rows={**state.rows, "stages": torch.tensor([4]), "calls": torch.tensor([0])})
    state.rows["sent"] = torch.zeros(1, dtype=torch.float64)
    for step in range(5):
        _, state = call(scheme, x, state, step)
    assert state.rows["stages"].tolist() == [3]


def test_stages_do_not_grow_without_end():
    state, x = None, torch.full((1, 200), 0.5)
    for step in range(60):
        (positions,), state = call(SIDCo(0.1), x, state, step)
        assert positions == list(range(20))
    assert state.rows["stages"].tolist() == [MOST_STAGES]
    assert SIDCo(0.1, stages=2).init((200,), 1, x[0]) == State()


# --------------------------------------------------------------------------------------------------------- degenerates

HARD = {
    "zeros": [0.0] * 50,
    "one element": [-3.0],
    "one element, zero": [0.0],
    "constant": [-0.7] * 50,
    "one-hot": [0.0] * 20 + [5.0] + [0.0] * 29,
    "two values": [1.0, 2.0] * 25,
    "subnormal": [1e-45] * 25 + [3e-45] * 25,
    "huge": [3e38] * 49 + [1e38],
    "almost constant": [1.0] * 49 + [1.0000001],
    "enormous ratio": [1e-30] * 49 + [1e30],
}


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("stages", [0, 1, 2, 5])
@pytest.mark.parametrize("name", HARD)
def test_regression_zeros_constants_and_single_elements_do_not_break_the_fits(fit, stages, name):
    """The authors' code raises on a zero or a constant gradient."""
    x, scheme = torch.tensor([HARD[name]]), SIDCo(0.1, fit, stages)
    state = None
    for step in range(6):
        (positions,), state = call(scheme, x, state, step)
        magnitude = x[0].abs()
        assert all(magnitude[positions] > 0)
        if not magnitude.any():
            assert positions == []
            continue
        rest = np.setdiff1d(np.arange(len(magnitude)), positions)
        assert len(positions) >= 1
        assert not len(rest) or magnitude[rest].max() <= magnitude[positions].min()
        if name == "constant":
            assert positions == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fit", FITS)
def test_zeros_of_a_sparse_gradient_do_not_count(fit):
    """Of values that are zero but for a tenth, as many are sent as if these were alone and the density tenfold."""
    alone = draws("laplace", 5000)
    padded = np.zeros(50_000)
    padded[::10] = alone
    (few,), _ = call(SIDCo(0.1, fit, 2), torch.from_numpy(alone[None]))
    (many,), _ = call(SIDCo(0.01, fit, 2), torch.from_numpy(padded[None]))
    assert many == [10 * i for i in few]
    assert len(few) == pytest.approx(500, rel=0.3)


@pytest.mark.parametrize("stages", [-1, MOST_STAGES + 1])
def test_number_of_stages_is_checked(stages):
    with pytest.raises(SchemeError, match="sidco: stages = .* must be 0 to 8"):
        SIDCo(stages=stages)


def test_regression_rows_are_where_the_gradient_is():
    """``meta`` stands for a GPU."""
    state = SIDCo().init((7,), 2, torch.zeros(7, device="meta"))
    assert {key: value.device.type for key, value in state.rows.items()} == dict.fromkeys(state.rows, "meta")
    assert set(state.rows) == {"stages", "calls", "sent"}
