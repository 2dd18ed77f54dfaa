"""Carrying over what units remember by element, when the same parameters are cut into other units."""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .base import Rate, Shape, State
from .partition import Unit


def regrouped(fresh: State, unit: Unit, sources: list[tuple[Unit, State]]) -> State:
    """Return the first state of a unit, with the element values that other units hold for its parameters.

    What belongs to a unit as a whole stays as in ``fresh``. The numbers beside element values say what these are
    measured in (the learning rate of error feedback) and go with them.

    Parameters
    ----------
    fresh : State
        As the scheme's ``init`` returns it.
    unit : Unit
    sources : list of (Unit, State)
        All units before. Where they lack a parameter, or their states have other parts, nothing is carried over.
    """
    places = []
    for parameter in unit.parameters:
        for source, state in sources:
            for own in source.parameters:
                if own.name == parameter.name:
                    start = own.start - source.start
                    places.append(_Place(state, slice(start, start + own.elements), source.shape))
    return _carried(fresh, unit.shape, places) if len(places) == len(unit.parameters) else fresh


class _Place(NamedTuple):
    """Where a parameter's values are: in which state, at which of its elements, of a unit of which shape."""

    state: State
    cut: slice
    shape: Shape


def _carried(fresh: State, shape: Shape, places: list[_Place]) -> State:
    """Carry over one level of a state and the levels within."""
    inner = fresh.inner
    within = [_Place(state.inner, cut, size) for state, cut, size in places if state.inner is not None]
    if inner is not None and len(within) == len(places):
        inner = _carried(inner, shape, within)
    if not fresh.elements or any(place.state.elements.keys() != fresh.elements.keys() for place in places):
        return State(fresh.elements, fresh.rows, fresh.shared, inner)
    elements = {
        key: torch.cat([place.state.elements[key][:, place.cut] for place in places], dim=1) for key in fresh.elements
    }
    shared = {key: _shared(key, value, shape, places) for key, value in fresh.shared.items()}
    return State(elements, fresh.rows, shared, inner)


def _shared(key: str, fresh: Rate, shape: Shape, places: list[_Place]) -> Rate:
    """Return a number, or a tensor with an entry for each element, as it goes with the elements; else ``fresh``.

    Such a tensor has the unit's shape or is flat; a fresh one tells which of them the scheme wants.
    """
    values = [place.state.shared.get(key, fresh) for place in places]
    if all(not isinstance(value, Tensor) and value == values[0] for value in values):
        return values[0]
    pieces = []
    for value, (state, cut, size) in zip(values, places, strict=True):
        if isinstance(value, Tensor):
            if value.shape not in (size, (prod(size),)):
                return fresh
            pieces.append(value.reshape(-1)[cut])
        else:
            like = next(iter(state.elements.values()))
            pieces.append(like.new_full((cut.stop - cut.start,), value))
    joined = torch.cat(pieces)
    if not isinstance(fresh, Tensor):
        return joined.view(shape)
    return joined.view(fresh.shape) if fresh.numel() == joined.numel() else fresh
