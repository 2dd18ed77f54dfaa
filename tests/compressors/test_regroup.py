"""Regrouping: memories follow their parameters when units change."""

from typing import Any

import torch

from gradwire.compressors.base import State
from gradwire.compressors.partition import Parameter, Unit
from gradwire.compressors.regroup import regrouped


def unit_of(*parameters: tuple[str, tuple[int, ...]]) -> Unit:
    found, start = [], 0
    for name, shape in parameters:
        found.append(Parameter(name, shape, start))
        start = found[-1].stop
    return Unit(tuple(found))


def state_of(values: list[float], **shared: Any) -> State:
    return State({"residual": torch.tensor([values])}, {"q": torch.ones(1, 2)}, shared)


A, B, C = ("a", (2,)), ("b", (2, 1)), ("c", (1,))


def test_elements_and_their_rates_follow_their_parameters():
    whole = unit_of(A, B, C)
    state = state_of([1.0, 2, 3, 4, 5], lr=0.5)
    found = regrouped(state_of([0.0] * 3, lr=1.0), unit_of(C, B), [(whole, state)])
    assert found.elements["residual"].tolist() == [[5, 3, 4]]
    assert found.shared == {"lr": 0.5}
    found = regrouped(
        state_of([0.0] * 2, lr=1.0), unit_of(B), [(whole, state_of([1.0, 2, 3, 4, 5], lr=torch.arange(5)))]
    )
    assert found.elements["residual"].tolist() == [[3, 4]]
    assert found.shared["lr"].tolist() == [[2], [3]]  # in the lone parameter's shape


def test_units_with_different_rates_join_to_a_rate_for_each_element():
    sources = [(unit_of(A), state_of([1.0, 2], lr=0.5)), (unit_of(C), state_of([3.0], lr=0.25))]
    found = regrouped(state_of([0.0] * 3, lr=1.0), unit_of(C, A), sources)
    assert found.elements["residual"].tolist() == [[3, 1, 2]]
    assert found.shared["lr"].tolist() == [0.25, 0.5, 0.5]


def test_what_belongs_to_a_unit_as_a_whole_starts_anew():
    source = State({"residual": torch.ones(1, 2)}, {"q": torch.full((1, 2), 7.0)}, {"lr": 1.0, "p": torch.zeros(3, 1)})
    fresh = State({"residual": torch.zeros(1, 2)}, {"q": torch.ones(1, 2)}, {"lr": 1.0, "p": torch.ones(4, 1)})
    found = regrouped(fresh, unit_of(A), [(unit_of(A), source)])
    assert found.elements["residual"].tolist() == [[1, 1]]
    assert found.rows["q"].tolist() == [[1, 1]]
    assert found.shared["p"].tolist() == [[1]] * 4


def test_levels_within_are_carried_over_too():
    outer = State(inner=state_of([1.0, 2], lr=0.5))
    found = regrouped(State(inner=state_of([0.0, 0], lr=1.0)), unit_of(A), [(unit_of(A), outer)])
    assert found.inner.elements["residual"].tolist() == [[1, 2]]
    assert found.inner.shared == {"lr": 0.5}


def test_a_unit_with_a_parameter_that_nobody_knew_starts_anew():
    found = regrouped(state_of([0.0] * 3, lr=1.0), unit_of(A, C), [(unit_of(A), state_of([1.0, 2], lr=0.5))])
    assert not found.elements["residual"].any()


def test_regression_a_flat_shared_momentum_stays_flat_in_a_lone_parameters_unit():
    """A scheme that keeps one vector for its unit, whatever the unit's shape, gets a vector back."""

    def state(values: list[float]) -> State:
        return State({"error": torch.tensor([values])}, shared={"momentum": torch.tensor(values)})

    whole = (unit_of(A, B), state([1.0, 2, 3, 4]))
    found = regrouped(state([0.0] * 2), unit_of(B), [whole])
    assert found.shared["momentum"].tolist() == [3, 4]
    alone = [(unit_of(A), state([1.0, 2])), (unit_of(B), state([3.0, 4]))]  # the second is flat, its unit is not
    found = regrouped(state([0.0] * 4), unit_of(B, A), alone)
    assert found.shared["momentum"].tolist() == [3, 4, 1, 2]
